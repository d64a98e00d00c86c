-- How many rows there are, by state and group (S10). ARGV: now. Answers by number: its name, it, and how many of these
-- have expired.
local flat = call('HGETALL', NUMBERS)
local answers = {}
for i = 1, #flat, 2 do
  local expired = 0
  if string.sub(flat[i], 1, 1) == 'L' then
    expired = call('ZCOUNT', group_key(string.sub(flat[i], 2)), '-inf', ARGV[1])
  end
  answers[#answers + 1] = { flat[i], tonumber(flat[i + 1]), expired }
end
return answers
