-- Writes a page of recipients and moves the cursor, where it still is the expected one (L4).
-- ARGV: now, broadcast, expected cursor, next cursor, then by origin: the origin, how many, the recipients.
-- Who is a recipient already and pending is left out: the key of a recipient names its origin, too.
local now, id, expected, next_cursor = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local END = 'E'
local b = broadcast(id)
if not b or b.fields.expanding ~= '1' or b.fields.cursor ~= expected
  or tonumber(b.fields.deadline) <= tonumber(now) then
  return 0
end
local has_states = call('EXISTS', states_key(id)) == 1
local at = b.fields.due_at
local written = 0
local i = 5
while ARGV[i] do
  local origin, last = ARGV[i], i + 1 + ARGV[i + 1]
  local rows = {}
  for first = i + 2, last, GROUP do
    local recipients = {}
    for place = first, math.min(first + GROUP - 1, last) do recipients[#recipients + 1] = ARGV[place] end
    local known = has_states and read_many('HMGET', states_key(id), recipients) or {}
    for place, recipient in ipairs(recipients) do
      if not known[place] then
        rows[#rows + 1] = at
        rows[#rows + 1] = recipient
      end
    end
  end
  for first = 1, #rows, GROUP do
    local some = { unpack(rows, first, math.min(first + GROUP - 1, #rows)) }
    written = written + call('ZADD', queue_key(origin, id), 'NX', unpack(some))
  end
  touch(origin, id)
  i = last + 1
end
set(b, 'written', int(tonumber(b.fields.written) + written))
add_rows(b, written)
set(b, 'cursor', next_cursor)
call('ZREM', NEW, id)
if next_cursor == END then
  set(b, 'expanding', '0')
  call('ZREM', RUN, id)
else
  call('ZADD', RUN, now, id)
end
index_changed()
save_changed(now)
return 1
