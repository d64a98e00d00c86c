-- Writes fields of a hash where all of them still are what they were. ARGV: the hash, then by field: its name, what it
-- was, what it becomes; nothing is ''. Answers whether it did.
-- A few octets for each origin, without which work goes on badly.
even_when_full()
local hash = P .. ':' .. ARGV[1]
for i = 2, #ARGV, 3 do
  if (call('HGET', hash, ARGV[i]) or '') ~= ARGV[i + 1] then return 0 end
end
for i = 2, #ARGV, 3 do
  if ARGV[i + 2] == '' then
    call('HDEL', hash, ARGV[i])
  else
    call('HSET', hash, ARGV[i], ARGV[i + 2])
  end
end
return 1
