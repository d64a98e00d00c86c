-- The numbers of broadcasts that are not over, by deadline (L16). ARGV: the first and the last of them, from 0.
local answers = {}
for i, id in ipairs(call('ZRANGE', OPEN, ARGV[1], ARGV[2])) do
  answers[i] = answer(id)
end
return answers
