-- Opens a broadcast of the 15 arguments from `first` on.

local BROADCAST_ARGS = 15

-- 'new', 'conflict', or the broadcast that it is a repetition of.
local function open_broadcast(first)
  local id, now, send_at, due_at, deadline, expected, idem, print, forgettable, audience, payload, ttl, urgency, topic, padding =
    unpack(ARGV, first, first + BROADCAST_ARGS - 1)
  if call('EXISTS', numbers_key(id)) == 1 then return answer(id) end
  if idem ~= '' then
    local known = call('HGET', IDEM, idem)
    if known and call('HGET', numbers_key(known), 'print') ~= print then return 'conflict' end
    if known then return answer(known) end
    call('HSET', IDEM, idem, id)
    call('HSET', numbers_key(id), 'idem', idem, 'print', print)
  end
  local turn = string.format('%014.0f', call('HINCRBY', META, 'turn', 1))
  call('HSET', numbers_key(id), 'turn', turn, 'created_at', now, 'due_at', due_at, 'deadline', deadline,
    'expected', expected, 'written', '0', 'rows', '0', 'expanding', '1', 'cancelled', '0',
    'forget', forgettable, 'cursor', '')
  if send_at ~= '' then call('HSET', numbers_key(id), 'send_at', send_at) end
  call('HSET', content_key(id), 'audience', audience, 'ttl', ttl, 'urgency', urgency, 'padding', padding)
  -- An empty payload is one, so it has a mark before it.
  if payload ~= '' then call('HSET', content_key(id), 'payload', string.sub(payload, 2)) end
  if topic ~= '' then call('HSET', content_key(id), 'topic', topic) end
  call('ZADD', OPEN, deadline, id)
  call('ZADD', NEW, due_at, id)
  return 'new'
end
