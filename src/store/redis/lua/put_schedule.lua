-- Inserts or replaces a schedule (D1). ARGV: owner, name, next moment, time, rest.
local owner, name, next_moment, time, rest = unpack(ARGV)
local stored = call('HGET', owner_key(owner), name)
if stored then
  local stored_moment, stored_time = parts(stored)
  -- What is due stays due.
  if stored_time == time then next_moment = stored_moment end
end
write_schedule(owner, name, next_moment, time, rest)
hint()
return 1
