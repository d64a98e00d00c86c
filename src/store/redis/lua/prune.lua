-- Forgets some of the broadcasts that ended before a moment (L13). ARGV: the moment. Answers how many, at most 200.
even_when_full()
local ids = call('ZRANGEBYSCORE', ENDED, '-inf', '(' .. ARGV[1], 'LIMIT', 0, 200)
for _, id in ipairs(ids) do
  forget(id, call('HGET', numbers_key(id), 'idem'))
end
return #ids
