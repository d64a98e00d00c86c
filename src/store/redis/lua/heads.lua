-- Origins where something can be claimed, for Rust to deal among (L5). ARGV: now, how many rows are wanted, how many
-- origins were looked at before. Answers whether leases that have ended are left to be given back first; how many
-- origins were looked at; and for each that is not paused: its name, its first moment, the fence of its last claim,
-- whether it is probed, how many rows are due at least, and whether these are all.
even_when_full()
local now, wanted = ARGV[1], tonumber(ARGV[2])
local AT_ONCE = 500
-- Broadcasts at one origin whose rows are counted; of the others one is.
local COUNTED = 32
if lapse(now, 200) then return { 1, 0, {} } end
local origins = call('ZRANGEBYSCORE', HEADS, '-inf', now, 'WITHSCORES', 'LIMIT', ARGV[3], AT_ONCE)
local found = {}
for i = 1, #origins, 2 do
  local origin = origins[i]
  local pause = pause_of(origin)
  if not pause or tonumber(pause.ends) <= tonumber(now) then
    local broadcasts = call('ZCOUNT', waiting_key(origin), '-inf', now)
    local rows = broadcasts
    if rows < wanted then
      local some = call('ZRANGEBYSCORE', waiting_key(origin), '-inf', now, 'LIMIT', 0, COUNTED)
      for _, member in ipairs(some) do
        local id = string.sub(member, TURN_LEN + 1)
        rows = rows - 1 + call('ZCOUNT', queue_key(origin, id), '-inf', now)
      end
    end
    found[#found + 1] = {
      origin, origins[i + 1], call('ZSCORE', SERVED, origin) or '0',
      pause and pause.is_probed and 1 or 0, rows, broadcasts <= COUNTED and 1 or 0,
    }
  end
end
return { 0, #origins / 2, found }
