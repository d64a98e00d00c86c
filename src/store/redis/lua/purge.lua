-- Deletes some of the rows that were retired before a moment (S13). ARGV: the moment. Answers how many, at most 200.
even_when_full()
local keys = call('ZRANGEBYSCORE', RETIRED, '-inf', '(' .. ARGV[1], 'LIMIT', 0, 200)
for _, key in ipairs(keys) do delete_row(key) end
return #keys
