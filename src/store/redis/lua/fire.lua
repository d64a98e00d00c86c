-- Fires schedules (D6). ARGV by firing: owner, name, the expected moment, the next one, and '1' with the 15 arguments
-- of the broadcast to open, or '0'. Answers a text of '1' for each that was fired and '0' for others.
local answers = {}
local i = 1
while ARGV[i] do
  local owner, name, expected, next_moment, opens = unpack(ARGV, i, i + 4)
  local stored = call('HGET', owner_key(owner), name)
  local moment, time, rest
  if stored then moment, time, rest = parts(stored) end
  local is_expected = moment == expected
  if is_expected then
    write_schedule(owner, name, next_moment, time, rest)
    if opens == '1' then open_broadcast(i + 5) end
  end
  answers[#answers + 1] = is_expected and '1' or '0'
  i = i + 5 + (opens == '1' and BROADCAST_ARGS or 0)
end
hint()
return table.concat(answers)
