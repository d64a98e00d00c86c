-- VAPID keys (K1 to K6).
--
--   vapid   hash    id -> the key
--   active  string  the id of the active one

local VAPID, ACTIVE = P .. ':vapid', P .. ':active'

-- Answers the id of the active one, or '', and all keys.
function operations.list()
  return { call('GET', ACTIVE) or '', call('HGETALL', VAPID) }
end

-- ARGV: id, key. Answers whether it was the first one.
function operations.insert_first()
  if call('HLEN', VAPID) > 0 then return 0 end
  call('HSET', VAPID, ARGV[1], ARGV[2])
  call('SET', ACTIVE, ARGV[1])
  return 1
end

-- ARGV: id, key, whether it becomes the active one.
function operations.insert()
  call('HSETNX', VAPID, ARGV[1], ARGV[2])
  if ARGV[3] == '1' then call('SET', ACTIVE, ARGV[1]) end
  return 1
end

-- Writes a key where it still is what it was. ARGV: id, what it was, what it becomes. Answers whether it did.
function operations.replace()
  if call('HGET', VAPID, ARGV[1]) ~= ARGV[2] then return 0 end
  call('HSET', VAPID, ARGV[1], ARGV[3])
  return 1
end

-- ARGV: id. Answers whether there was such a key; the active one stays.
function operations.remove()
  if call('GET', ACTIVE) == ARGV[1] then return 0 end
  return call('HDEL', VAPID, ARGV[1])
end
