-- Writes the pause of an origin, where it still is what it was (L11). ARGV: the origin, what it was, what it becomes;
-- nothing is ''. Answers whether it did.
-- A few octets for each origin, without which work goes on badly.
even_when_full()
local origin = ARGV[1]
if (call('HGET', PAUSES, origin) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  call('HDEL', PAUSES, origin)
else
  call('HSET', PAUSES, origin, ARGV[3])
end
index_origin(origin)
return 1
