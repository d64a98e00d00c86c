-- Rows by their names (S8). ARGV by row: 'id' or 'key', and it. Answers a row or nothing for each.
local found = {}
for i = 1, #ARGV, 2 do
  local key = ARGV[i + 1]
  if ARGV[i] == 'id' then key = call('HGET', IDS, key) end
  found[#found + 1] = key and call('HGET', ROWS, key) or false
end
return found
