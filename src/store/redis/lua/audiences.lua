-- The audiences of some broadcasts; nothing of those that are over. ARGV: their ids.
local answers = {}
for i, id in ipairs(ARGV) do answers[i] = call('HGET', content_key(id), 'audience') end
return answers
