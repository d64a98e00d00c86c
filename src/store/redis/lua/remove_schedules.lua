-- Removes schedules of one owner (D3). ARGV: owner, the name of one or nothing for all. Answers how many.
local owner, name = ARGV[1], ARGV[2]
if name then return remove_schedule(owner, name) end
local removed = 0
for _, each in ipairs(call('HKEYS', owner_key(owner))) do
  removed = removed + remove_schedule(owner, each)
end
return removed
