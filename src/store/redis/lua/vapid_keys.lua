-- VAPID keys (K1 to K6). ARGV: what to do, an id, and what that takes. Answers whether it was done.
--
--   vapid   hash    id -> the key
--   active  string  the id of the active one
local VAPID, ACTIVE = P .. ':vapid', P .. ':active'
local what, id = ARGV[1], ARGV[2]
if what == 'list' then
  return { call('GET', ACTIVE) or '', call('HGETALL', VAPID) }
elseif what == 'insert_first' then
  if call('HLEN', VAPID) > 0 then return 0 end
  call('HSET', VAPID, id, ARGV[3])
  call('SET', ACTIVE, id)
elseif what == 'insert' then
  call('HSETNX', VAPID, id, ARGV[3])
  if ARGV[4] == '1' then call('SET', ACTIVE, id) end
elseif what == 'replace' then
  if call('HGET', VAPID, id) ~= ARGV[3] then return 0 end
  call('HSET', VAPID, id, ARGV[4])
elseif what == 'remove' then
  if call('GET', ACTIVE) == id then return 0 end
  return call('HDEL', VAPID, id)
end
return 1
