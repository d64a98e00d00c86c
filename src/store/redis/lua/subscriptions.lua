-- The subscriptions' keys, and what their scripts share.
--
--   rows          hash  endpoint key -> the row
--   ids           hash  id -> endpoint key
--   all           zset  the rows that are neither retired nor stale, by key (all scores are 0)
--   t:TAG, tx:TAG zset  the rows of a tag, by key: those that are in `all`, and the others
--   te:TAG        zset  those of t:TAG that expire, by when
--   u:PRINCIPAL   zset  the rows of a principal, by when they were seen last
--   x:GROUP       zset  those of `all` that expire, by when; a group is PUSH SERVICE|VAPID KEY
--   retired       zset  the retired rows, by since when
--   meta          hash  among others `unproven`, how many rows are so (S16); none is 0
--   numbers       hash  L, S or R (live, stale, retired) + GROUP -> how many
--
-- A row is a MessagePack array of texts: one text of a few hundred bytes, where a hash of so many fields would take
-- three times as much.

local ROWS, IDS, ALL = P .. ':rows', P .. ':ids', P .. ':all'
local RETIRED, NUMBERS = P .. ':retired', P .. ':numbers'

-- The places in a row.
local ID, EXPIRES, PRINCIPAL, TAGS, VAPID_KEY, SERVICE = 1, 5, 6, 7, 8, 9
local LAST_SEEN, LAST_SUCCESS, STREAK, STALE, RETIRED_AT, REASON, FAILING_SINCE = 12, 13, 14, 15, 16, 17, 18

local function tag_key(tag) return P .. ':t:' .. tag end
local function dead_tag_key(tag) return P .. ':tx:' .. tag end
local function expiring_tag_key(tag) return P .. ':te:' .. tag end
local function principal_key(principal) return P .. ':u:' .. principal end
local function group_key(group) return P .. ':x:' .. group end

local function read_row(key)
  local raw = call('HGET', ROWS, key)
  return raw and cmsgpack.unpack(raw)
end

local function write_row(key, row)
  call('HSET', ROWS, key, cmsgpack.pack(row))
end

local function state_of(row)
  if row[RETIRED_AT] ~= '' then return 'R' end
  return row[STALE] == '1' and 'S' or 'L'
end

-- What `SubscriptionRecord::is_unproven` says (S16).
local function is_unproven(row)
  return row[PRINCIPAL] == '' and row[LAST_SUCCESS] == '' and state_of(row) == 'L'
end

local function count_unproven(row, number)
  if is_unproven(row) and call('HINCRBY', META, 'unproven', number) == 0 then call('HDEL', META, 'unproven') end
end

-- Counts a row as it is, by `number`, and puts it into its indices or takes it out.
local function index_row(key, row, number)
  local is_in = number > 0
  local function put(set, score)
    if is_in then call('ZADD', set, score, key) else call('ZREM', set, key) end
  end
  local state = state_of(row)
  local group = row[SERVICE] .. '|' .. row[VAPID_KEY]
  count_unproven(row, number)
  if call('HINCRBY', NUMBERS, state .. group, number) == 0 then call('HDEL', NUMBERS, state .. group) end
  if row[PRINCIPAL] ~= '' then put(principal_key(row[PRINCIPAL]), row[LAST_SEEN]) end
  local expires = row[EXPIRES] ~= '' and row[EXPIRES]
  if state == 'L' then
    put(ALL, 0)
    if expires then put(group_key(group), expires) end
  elseif state == 'R' then
    put(RETIRED, row[RETIRED_AT])
  end
  for tag in string.gmatch(row[TAGS], '[^ ]+') do
    put(state == 'L' and tag_key(tag) or dead_tag_key(tag), 0)
    if state == 'L' and expires then put(expiring_tag_key(tag), expires) end
  end
end

local function insert_row(key, row)
  write_row(key, row)
  call('HSET', IDS, row[ID], key)
  index_row(key, row, 1)
end

-- Deletes a row, if there is one; whether there was.
local function delete_row(key)
  local row = read_row(key)
  if not row then return false end
  call('HDEL', ROWS, key)
  if call('HGET', IDS, row[ID]) == key then call('HDEL', IDS, row[ID]) end
  index_row(key, row, -1)
  return true
end
