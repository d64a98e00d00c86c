-- The subscriptions' keys, and functions that their scripts share.
--
--   rows          hash  endpoint key -> the row
--   ids           hash  id -> endpoint key
--   all           zset  the rows that are neither retired nor stale, by key (all scores are 0)
--   dead          zset  the others, by key
--   t:TAG, tx:TAG zset  the rows of a tag, by key: those in `all`, and the others
--   te:TAG        zset  the rows of t:TAG that expire, by expiration
--   u:PRINCIPAL   zset  the rows of a principal, by last_seen_at
--   x:GROUP       zset  the rows of `all` that expire, by expiration; a group is PUSH SERVICE|VAPID KEY
--   retired       zset  the retired rows, by retired_at
--   stale         zset  the stale rows, by stale_since
--   expires       zset  the rows that expire, by expiration
--   meta          hash  `unproven` is the number of unproven rows (S16), absent for 0
--   numbers       hash  L, S or R (live, stale, retired) + GROUP -> the number of rows
--
-- A row is a MessagePack array of texts: a few hundred octets, where a hash with as many fields takes three times as
-- much.

local ROWS, IDS, ALL = P .. ':rows', P .. ':ids', P .. ':all'
local DEAD = P .. ':dead'
local RETIRED, STALE, EXPIRES = P .. ':retired', P .. ':stale', P .. ':expires'
local NUMBERS = P .. ':numbers'

-- The indexes of a row's fields.
local ID, EXPIRES_AT, PRINCIPAL, TAGS, VAPID_KEY, SERVICE = 1, 5, 6, 7, 8, 9
local LAST_SEEN, LAST_SUCCESS, STREAK, FAILING_SINCE, STALE_SINCE, RETIRED_AT, REASON = 12, 13, 14, 15, 16, 17, 18
local FAILED_AT, FAILURE_STATUS, FAILURE_REASON = 19, 20, 21

local function tag_key(tag) return P .. ':t:' .. tag end
local function dead_tag_key(tag) return P .. ':tx:' .. tag end
local function expiring_tag_key(tag) return P .. ':te:' .. tag end
local function principal_key(principal) return P .. ':u:' .. principal end
local function group_key(group) return P .. ':x:' .. group end

-- Returns a row; nil if there is none, or it is damaged.
local function read_row(key)
  local raw = call('HGET', ROWS, key)
  if not raw then return nil end
  local is_readable, row = pcall(cmsgpack.unpack, raw)
  if is_readable and type(row) == 'table' and #row >= FAILURE_REASON then return row end
  return nil
end

local function write_row(key, row)
  call('HSET', ROWS, key, cmsgpack.pack(row))
end

local function state_of(row)
  if row[RETIRED_AT] ~= '' then return 'R' end
  return row[STALE_SINCE] ~= '' and 'S' or 'L'
end

local function group_of(row)
  return row[SERVICE] .. '|' .. row[VAPID_KEY]
end

-- The same condition as `SubscriptionRecord::is_unproven` (S16).
local function is_unproven(row)
  return row[PRINCIPAL] == '' and row[LAST_SUCCESS] == '' and state_of(row) == 'L'
end

local function count_unproven(row, number)
  if is_unproven(row) and call('HINCRBY', META, 'unproven', number) == 0 then call('HDEL', META, 'unproven') end
end

-- Adds `number` to the counts of a row's state, and adds the row to its indexes or removes it.
local function index_row(key, row, number)
  local is_in = number > 0
  local function put(set, score)
    if is_in then call('ZADD', set, score, key) else call('ZREM', set, key) end
  end
  local state = state_of(row)
  local group = group_of(row)
  count_unproven(row, number)
  if call('HINCRBY', NUMBERS, state .. group, number) == 0 then call('HDEL', NUMBERS, state .. group) end
  if row[PRINCIPAL] ~= '' then put(principal_key(row[PRINCIPAL]), row[LAST_SEEN]) end
  local expires = row[EXPIRES_AT] ~= '' and row[EXPIRES_AT]
  if expires then put(EXPIRES, expires) end
  if row[STALE_SINCE] ~= '' then put(STALE, row[STALE_SINCE]) end
  if row[RETIRED_AT] ~= '' then put(RETIRED, row[RETIRED_AT]) end
  if state == 'L' then
    put(ALL, 0)
    if expires then put(group_key(group), expires) end
  else
    put(DEAD, 0)
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

-- Changes a row, and its counts and indexes with it.
local function rewrite_row(key, row, change)
  index_row(key, row, -1)
  change()
  index_row(key, row, 1)
  write_row(key, row)
end

-- Deletes a row. Returns whether it existed.
local function delete_row(key)
  -- Without a write, after which a full server would refuse no other one.
  if call('HEXISTS', ROWS, key) == 0 then return false end
  local row = read_row(key)
  call('HDEL', ROWS, key)
  if not row then
    -- A damaged row leaves the sets whose names do not depend on it. Others skip what has no row.
    for _, set in ipairs({ ALL, DEAD, RETIRED, STALE, EXPIRES }) do call('ZREM', set, key) end
    return true
  end
  if call('HGET', IDS, row[ID]) == key then call('HDEL', IDS, row[ID]) end
  index_row(key, row, -1)
  return true
end

-- Writes a row that Rust has merged (S2 to S7, S16). ARGV: the endpoint key, the stored row as read, the key of the row to
-- replace, that row as read, the new row, the limits; '' for none. Returns a list that begins with 'stored'; 'again' if a row has
-- changed since it was read, and then both rows; 'taken' if the id belongs to another row; 'full'; 'unproven' if there are too many
-- unproven rows.
function operations.upsert()
  local key, standing, replaced_key, replaced, raw = unpack(ARGV, 1, 5)
  local total, per_principal, unproven = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
  local found = call('HGET', ROWS, key) or ''
  local found_replaced = replaced_key ~= '' and call('HGET', ROWS, replaced_key) or ''
  if found ~= standing or found_replaced ~= replaced then return { 'again', found, found_replaced } end
  local row = cmsgpack.unpack(raw)
  local named = call('HGET', IDS, row[ID])
  if named and named ~= key and named ~= replaced_key then return { 'taken' } end

  -- Checked before the first write, so that a refusal changes nothing.
  local leaving = {}
  local is_leaving = { [key] = true }
  local function leave(other)
    if not is_leaving[other] then
      is_leaving[other] = true
      leaving[#leaving + 1] = other
    end
  end
  if replaced ~= '' then leave(replaced_key) end
  if row[PRINCIPAL] ~= '' then
    local theirs = principal_key(row[PRINCIPAL])
    local others = call('ZCARD', theirs)
    for other in pairs(is_leaving) do
      if call('ZSCORE', theirs, other) then others = others - 1 end
    end
    local surplus = others + 1 - math.max(per_principal, 1)
    if surplus > 0 then
      -- Two more than the surplus: the row itself and the one it replaces may be among the first.
      for _, other in ipairs(call('ZRANGE', theirs, 0, surplus + 1)) do
        if surplus > 0 and not is_leaving[other] then
          leave(other)
          surplus = surplus - 1
        end
      end
    end
  end
  if standing == '' and call('HLEN', ROWS) + 1 - #leaving > total then return { 'full' } end
  if standing == '' and replaced == '' and is_unproven(row) then
    local others = tonumber(call('HGET', META, 'unproven') or 0)
    if others + 1 > unproven then return { 'unproven' } end
  end
  for _, other in ipairs(leaving) do delete_row(other) end
  if standing ~= '' then delete_row(key) end
  insert_row(key, row)
  return { 'stored' }
end

-- Makes changes, in order (S11, S12, S18, S19). ARGV: now, then for each change: its kind, the endpoint key, two values, and
-- the status and the reason of a failure. Returns the number of changed rows.
function operations.apply()
  even_when_full()
  local now = ARGV[1]
  local changed = 0
  for i = 2, #ARGV, 6 do
    local kind, key, first, second, status, why = unpack(ARGV, i, i + 5)
    local row = read_row(key)
    if row then
      local function rewrite(change)
        rewrite_row(key, row, change)
        changed = changed + 1
      end
      local function fail()
        row[FAILED_AT], row[FAILURE_STATUS], row[FAILURE_REASON] = now, status, why
      end
      -- An observation from before the last upsert is out of date.
      local is_known = tonumber(row[LAST_SEEN]) <= (tonumber(first) or 0)
      if kind == 'delete' then
        if is_known and row[PRINCIPAL] == second then
          delete_row(key)
          changed = changed + 1
        end
      elseif kind == 'accepted' then
        count_unproven(row, -1)
        row[LAST_SUCCESS], row[STREAK], row[FAILING_SINCE] = now, '0', ''
        write_row(key, row)
        changed = changed + 1
      elseif kind == 'failed' then
        row[STREAK] = int(math.min(row[STREAK] + 1, 4294967295))
        if row[FAILING_SINCE] == '' then row[FAILING_SINCE] = now end
        fail()
        write_row(key, row)
        changed = changed + 1
      elseif kind == 'vapid_key' then
        rewrite(function() row[VAPID_KEY] = first end)
      elseif kind == 'retire' and row[RETIRED_AT] == '' and is_known then
        fail()
        rewrite(function() row[RETIRED_AT], row[REASON] = now, second end)
      elseif kind == 'stale' and row[STALE_SINCE] == '' and is_known then
        fail()
        rewrite(function() row[STALE_SINCE] = now end)
      end
    end
  end
  return changed
end

-- Returns whether a row is due that an index has named: by damage the index may have another time than the row, which is put
-- right then. One that cannot be read is due.
local function is_due(set, key, field, is_over)
  local row = read_row(key)
  local at = row and row[field]
  if at == '' then
    call('ZREM', set, key)
  elseif type(at) == 'string' and #at < 20 and string.match(at, '^%-?%d+$') and not is_over(tonumber(at)) then
    call('ZADD', set, at, key)
  else
    return true
  end
  return false
end

-- Deletes or retires up to 200 rows (S13): deletes those that are retired or stale since before a time, or expired before another,
-- and unproven ones that have expired; retires others that have expired. ARGV: now, both times, the reason. Returns their
-- number, and that of the members of indexes that were put right with it.
function operations.purge()
  even_when_full()
  local now = ARGV[1]
  local purged = 0
  local dead = { { RETIRED, RETIRED_AT, ARGV[2] }, { STALE, STALE_SINCE, ARGV[2] }, { EXPIRES, EXPIRES_AT, ARGV[3] } }
  for _, index in ipairs(dead) do
    local set, field, before = unpack(index)
    local function is_over(at) return at < tonumber(before) end
    for _, key in ipairs(call('ZRANGEBYSCORE', set, '-inf', '(' .. before, 'LIMIT', 0, 200 - purged)) do
      if is_due(set, key, field, is_over) then
        delete_row(key)
        -- By damage there is no such row: its member would be found again and again.
        call('ZREM', set, key)
      end
      purged = purged + 1
    end
  end
  for _, name in ipairs(call('HKEYS', NUMBERS)) do
    if string.sub(name, 1, 1) == 'L' then
      local set = group_key(string.sub(name, 2))
      for _, key in ipairs(call('ZRANGEBYSCORE', set, '-inf', now, 'LIMIT', 0, 200 - purged)) do
        local row = read_row(key)
        if row and (state_of(row) ~= 'L' or group_of(row) ~= string.sub(name, 2)) then
          -- By damage: it is no row of this group, or not a live one.
          call('ZREM', set, key)
        elseif is_due(set, key, EXPIRES_AT, function(at) return at <= tonumber(now) end) then
          if row and not is_unproven(row) then
            rewrite_row(key, row, function() row[RETIRED_AT], row[REASON] = now, ARGV[4] end)
          else
            delete_row(key)
          end
          -- A damaged row is in sets whose names it does not tell.
          call('ZREM', set, key)
        end
        purged = purged + 1
      end
    end
  end
  return purged
end

-- Returns rows by key or id (S8). ARGV for each row: 'id' or 'key', and the value. Returns a row or nil for each.
function operations.rows()
  local found = {}
  for i = 1, #ARGV, 2 do
    local key = ARGV[i + 1]
    if ARGV[i] == 'id' then key = call('HGET', IDS, key) end
    found[#found + 1] = key and call('HGET', ROWS, key) or false
  end
  return found
end

-- Returns the rows of users, of which each has few (S6): of each set of keys its rows, or 'alone' for one of several for which there
-- is no room. ARGV: the sets.
function operations.owned()
  local answers, room = {}, GROUP
  local is_alone = #ARGV == 1
  for i, set in ipairs(ARGV) do
    local keys = call('ZRANGE', P .. ':' .. set, 0, is_alone and -1 or room)
    if is_alone or #keys <= room then
      room = room - #keys
      answers[i] = read_many('HMGET', ROWS, keys)
    else
      answers[i] = 'alone'
    end
  end
  return answers
end

-- Returns the next keys of a set and their rows, by key (S9). ARGV: the set, the last key ('' at the beginning), the limit.
function operations.walk()
  local first = ARGV[2] == '' and '-' or '(' .. ARGV[2]
  local keys = call('ZRANGEBYLEX', P .. ':' .. ARGV[1], first, '+', 'LIMIT', 0, ARGV[3])
  if #keys == 0 then return { {}, {} } end
  return { keys, call('HMGET', ROWS, unpack(keys)) }
end

-- Returns the next keys of two sets without a common member, and their rows, by key (S20). ARGV: the sets, the last key ('' at
-- the beginning), the limit of each.
function operations.walk_both()
  local first = ARGV[3] == '' and '-' or '(' .. ARGV[3]
  local found = {}
  for i = 1, 2 do
    local keys = call('ZRANGEBYLEX', P .. ':' .. ARGV[i], first, '+', 'LIMIT', 0, ARGV[4])
    found[2 * i - 1] = keys
    found[2 * i] = #keys > 0 and call('HMGET', ROWS, unpack(keys)) or {}
  end
  return found
end

-- Returns the numbers of rows by state and group (S10). ARGV: now. Returns for each: its name, the number of rows, and the
-- number of those that have expired.
function operations.numbers()
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
end

-- Returns the number of live rows of a tag (S10). ARGV: now, the tag.
function operations.tagged()
  return call('ZCARD', tag_key(ARGV[2])) - call('ZCOUNT', expiring_tag_key(ARGV[2]), '-inf', ARGV[1])
end

-- Writes whole rows that Rust has compared with the stored ones (C2). ARGV for each: the endpoint key, the stored row as
-- read, the row that the index of ids names as read, if it is another one, the new row; '' for none. Returns 1, or 0 if a row
-- has changed since it was read: then nothing is written.
function operations.put()
  local rows, leaving = {}, {}
  local added = 0
  for i = 1, #ARGV, 4 do
    local key, standing, named, raw = unpack(ARGV, i, i + 3)
    if (call('HGET', ROWS, key) or '') ~= standing then return 0 end
    leaving[#leaving + 1] = key
    if standing == '' then added = added + 1 end
    local row = cmsgpack.unpack(raw)
    local owner = call('HGET', IDS, row[ID])
    if owner and owner ~= key then
      if (call('HGET', ROWS, owner) or '') ~= named then return 0 end
      -- A row with another id stays: the index was wrong.
      local theirs = read_row(owner)
      if not theirs or theirs[ID] == row[ID] then
        leaving[#leaving + 1] = owner
        if named ~= '' then added = added - 1 end
      end
    end
    rows[#rows + 1] = { key, row }
  end
  if added > 0 then not_when_full() end
  -- All of them first: one may have the key of a row that is written.
  for _, key in ipairs(leaving) do delete_row(key) end
  for _, entry in ipairs(rows) do insert_row(unpack(entry)) end
  return 1
end

-- Whether a key sorts before another. Lua's own comparison depends on the server's locale.
local function precedes(key, other)
  for i = 1, math.min(#key, #other) do
    local octet, others = string.byte(key, i), string.byte(other, i)
    if octet ~= others then return octet < others end
  end
  return #key < #other
end

-- Returns the next rows that are retired, or stale, by the time since which they are, and by key (C1). ARGV: the set, the time
-- and the key after which ('-inf' and '' at the beginning), the limit. Returns the keys, the times and the rows.
function operations.unreachable()
  local set, since, after, limit = P .. ':' .. ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
  local first = 0
  if after ~= '' then
    -- The last row may be gone: its place is found among the rows of its time.
    first = call('ZCOUNT', set, '-inf', '(' .. since)
    local last = call('ZCOUNT', set, '-inf', since)
    while first < last do
      local middle = math.floor((first + last) / 2)
      local key = call('ZRANGE', set, middle, middle)[1]
      if precedes(after, key) then last = middle else first = middle + 1 end
    end
  end
  local found = call('ZRANGE', set, first, first + limit - 1, 'WITHSCORES')
  local keys, times = {}, {}
  for i = 1, #found, 2 do
    keys[#keys + 1] = found[i]
    times[#times + 1] = found[i + 1]
  end
  return { keys, times, read_many('HMGET', ROWS, keys) }
end
