-- Claims rows (L5, L6). ARGV: now, the end of the lease, then by origin: its name, at most how many.
-- Answers the fence, the rows (origin, broadcast, recipient, attempt), and each broadcast's numbers and content.
even_when_full()
local now, leased_until = ARGV[1], ARGV[2]
call('HINCRBY', META, 'fence', 1)
-- As text: a number of Lua's would be a double.
local fence = call('HGET', META, 'fence')
local rows, contents, known = {}, {}, {}
-- Cancelled broadcasts at one origin that are ended on the way.
local CANCELLED_AT_ONCE = 32

-- Moves rows of one queue under the lease.
local function lease(origin, id, recipients)
  local states = read_many('HMGET', states_key(id), recipients)
  local members, new_states = {}, {}
  for i, recipient in ipairs(recipients) do
    local attempt = 1
    if states[i] then attempt = state(states[i]).attempts + 1 end
    members[2 * i - 1] = leased_until
    members[2 * i] = id .. recipient
    new_states[2 * i - 1] = recipient
    new_states[2 * i] = raw_state(fence, int(attempt), origin)
    rows[#rows + 1] = { origin, id, recipient, attempt }
  end
  call_many('ZREM', queue_key(origin, id), recipients)
  call_many('ZADD', LEASED, members)
  call_many('HSET', states_key(id), new_states)
  touch(origin, id)
  if not known[id] then
    known[id] = true
    local b = broadcast(id)
    contents[#contents + 1] = { id, b.fields.due_at, b.fields.deadline, call('HGETALL', content_key(id)) }
  end
end

for i = 3, #ARGV, 2 do
  local origin, wanted = ARGV[i], tonumber(ARGV[i + 1])
  local pause = pause_of(origin)
  if pause and tonumber(pause.ends) > tonumber(now) then
    wanted = 0
  elseif pause and pause.is_probed then
    wanted = math.min(wanted, 1)
  end
  local taken, ended = 0, 0
  while taken < wanted and ended < CANCELLED_AT_ONCE do
    -- Of the broadcast whose first row waits longest, the rows that wait longer than any other's.
    local first = call('ZRANGE', waiting_key(origin), 0, 1, 'WITHSCORES')
    if not first[1] or tonumber(first[2]) > tonumber(now) then break end
    local bound = now
    if first[4] and tonumber(first[4]) < tonumber(now) then bound = first[4] end
    local id = string.sub(first[1], TURN_LEN + 1)
    local b = broadcast(id)
    if b.is_cancelled then
      -- Whoever has cancelled it has not come to this origin yet.
      end_queue(origin, b)
      ended = ended + 1
    else
      local recipients = call('ZRANGEBYSCORE', queue_key(origin, id), '-inf', bound, 'LIMIT', 0, wanted - taken)
      lease(origin, id, recipients)
      taken = taken + #recipients
    end
    index_changed()
  end
  if taken > 0 then
    call('ZADD', SERVED, fence, origin)
    call('ZADD', READY, 'XX', fence, origin)
    if pause and pause.is_probed then
      pause.ends, pause.probe = leased_until, fence
      write_pause(origin, pause)
    end
  end
end
save_changed(now)
return { fence, rows, contents }
