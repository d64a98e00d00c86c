-- The next rows of a set, by key (S9). ARGV: the set, the key to go on after (nothing at the beginning), how many.
local first = ARGV[2] == '' and '-' or '(' .. ARGV[2]
local keys = call('ZRANGEBYLEX', P .. ':' .. ARGV[1], first, '+', 'LIMIT', 0, ARGV[3])
if #keys == 0 then return {} end
return call('HMGET', ROWS, unpack(keys))
