-- VAPID keys (K1 to K6).
--
--   vapid   hash    id -> the key
--   active  string  the id of the active one

local VAPID, ACTIVE = P .. ':vapid', P .. ':active'

-- Returns the id of the active key, or '', and all keys.
function operations.list()
  return { call('GET', ACTIVE) or '', call('HGETALL', VAPID) }
end

-- Inserts the first key. ARGV: id, key. Returns whether there was none.
function operations.insert_first()
  if call('HLEN', VAPID) > 0 then return 0 end
  call('HSET', VAPID, ARGV[1], ARGV[2])
  call('SET', ACTIVE, ARGV[1])
  return 1
end

-- Inserts a key. ARGV: id, key, whether it becomes active.
function operations.insert()
  call('HSETNX', VAPID, ARGV[1], ARGV[2])
  if ARGV[3] == '1' then call('SET', ACTIVE, ARGV[1]) end
  return 1
end

-- Replaces a key if it is unchanged. ARGV: id, the old and the new value. Returns whether it was replaced.
function operations.replace()
  if call('HGET', VAPID, ARGV[1]) ~= ARGV[2] then return 0 end
  call('HSET', VAPID, ARGV[1], ARGV[3])
  return 1
end

-- Removes a key. ARGV: id. Returns whether it existed. The active key stays.
function operations.remove()
  if call('GET', ACTIVE) == ARGV[1] then return 0 end
  return call('HDEL', VAPID, ARGV[1])
end
