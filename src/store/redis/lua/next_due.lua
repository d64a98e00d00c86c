-- When there may be something to claim, to expand or to expire (L14). ARGV: now. What is to be expanded now is asked
-- elsewhere. Answers whether there is something to put in order first; then the moments.
even_when_full()
local now = ARGV[1]
-- Origins that are looked at in one step.
local LOOKS = 200
if lapse(now, 200) or wake(now, LOOKS) then return { 1 } end
local best
local looks = 0
repeat
  if looks == LOOKS then return { 1 } end
  looks = looks + 1
  local origin = call('ZRANGE', READY, 0, 0)[1]
  if origin then best = look_at_ready(origin, now) end
until best or not origin
while not best do
  if looks == LOOKS then return { 1 } end
  looks = looks + 1
  local origin, at = unpack(call('ZRANGE', WAKES, 0, 0, 'WITHSCORES'))
  if not origin then break end
  local first = head(waiting_key(origin))
  local from = first and claimable_from(origin, first)
  if from and tonumber(from) == tonumber(at) then best = from else index_origin(origin) end
end
local moments = { 0 }
if best then moments[#moments + 1] = best end
local lease_ends = head(LEASED)
if lease_ends then moments[#moments + 1] = lease_ends end
for _, set in ipairs({ NEW, RUN, OPEN }) do
  local later = call('ZRANGEBYSCORE', set, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if later[2] then moments[#moments + 1] = later[2] end
end
return moments
