-- Schedules that are due, the longest due first (D5). ARGV: now, the first of them, how many.
-- Answers by schedule: owner, name, value.
local answers = {}
for i, member in ipairs(call('ZRANGEBYSCORE', FIRES, '-inf', ARGV[1], 'LIMIT', ARGV[2], ARGV[3])) do
  local length = string.sub(member, 1, 1) == 'a' and 1 or 17
  local owner, name = string.sub(member, 1, length), string.sub(member, length + 1)
  answers[i] = { owner, name, call('HGET', owner_key(owner), name) }
end
return answers
