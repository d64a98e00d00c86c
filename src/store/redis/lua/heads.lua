-- Origins where something can be claimed, for Rust to deal among (L5), those first that were served longest ago.
-- ARGV: now, how many rows are wanted, how many origins of those that are ready were passed before. Answers whether
-- there is something to put in order first; how many were passed; whether there may be more; and for each: its name, its
-- first moment, the fence of its last claim, whether it is probed, how many rows are due at least, and whether these are
-- all.
even_when_full()
local now, wanted, passed = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local AT_ONCE = 500
-- Broadcasts at one origin whose rows are counted; of the others one is.
local COUNTED = 32
if lapse(now, 200) or wake(now, AT_ONCE) then return { 1, passed, 1, {} } end
local origins = call('ZRANGE', READY, passed, passed + AT_ONCE - 1, 'WITHSCORES')
local found = {}
for i = 1, #origins, 2 do
  local origin = origins[i]
  local first, pause = look_at_ready(origin, now)
  if first then
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
      origin, first, origins[i + 1], pause and pause.is_probed and 1 or 0, rows, broadcasts <= COUNTED and 1 or 0,
    }
  end
end
-- The others are not in this set any more.
return { 0, passed + #found, #origins == 2 * AT_ONCE and 1 or 0, found }
