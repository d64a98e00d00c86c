-- Gives schedules to another owner, where that has none of the name (D4). ARGV: from, to.
-- As many as before, or fewer.
even_when_full()
local from, to = ARGV[1], ARGV[2]
local flat = call('HGETALL', owner_key(from))
for i = 1, #flat, 2 do
  local name = flat[i]
  if call('HEXISTS', owner_key(to), name) == 0 then
    write_schedule(to, name, parts(flat[i + 1]))
  end
  remove_schedule(from, name)
end
return 1
