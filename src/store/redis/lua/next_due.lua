-- When there may be something to claim, to expand or to expire (L14). ARGV: now. What is to be expanded now is asked
-- elsewhere. Answers whether leases that have ended are left to be given back first; then the moments.
even_when_full()
local now = ARGV[1]
if lapse(now, 200) then return { 1 } end
local moments = { 0 }
local best
local first = 0
repeat
  local some = call('ZRANGE', HEADS, first, first + 99, 'WITHSCORES')
  local is_last = #some == 0
  for i = 1, #some, 2 do
    local at = some[i + 1]
    -- They are in order: no later one can be earlier.
    if best and tonumber(at) >= tonumber(best) then
      is_last = true
      break
    end
    local pause = pause_of(some[i])
    if pause and tonumber(pause.ends) > tonumber(at) then at = pause.ends end
    if not best or tonumber(at) < tonumber(best) then best = at end
  end
  first = first + 100
until is_last
if best then moments[#moments + 1] = best end
local lease_ends = head(LEASED)
if lease_ends then moments[#moments + 1] = lease_ends end
for _, set in ipairs({ NEW, RUN, OPEN }) do
  local later = call('ZRANGEBYSCORE', set, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if later[2] then moments[#moments + 1] = later[2] end
end
return moments
