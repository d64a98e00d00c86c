-- The ledger's keys, and functions that its scripts share.
--
--   b:ID        hash  the counts of a broadcast; `outcome:NAME` is the number of rows with this outcome
--   c:ID        hash  its content, until it is over
--   w:ID        set   the origins with ready rows of it
--   a:ID        set   those of these origins where its rows were put aside, since it is paused: it is not in their o
--   s:ID        hash  its rows that were claimed before: recipient -> FENCE:ATTEMPTS:ORIGIN; a fence of 0 was spent
--   f:ID        text  samples of its failed rows, a line for each
--   p:ID        zset  its rows that wait for their time, as after a retry, by this time
--   later       zset  the broadcasts with such rows, by the first time
--   leased      zset  ID + recipient of leased rows, by the end of the lease
--   owned       zset  the same of those that a worker has leased, by its number
--   workers     hash  the numbers of workers -> the time of the last beat, or `dead`
--   q:ORIGIN:ID zset  its ready rows at an origin, by the time for which they waited
--   o:ORIGIN    zset  PLACE + ID of the broadcasts with ready rows at an origin, by the turn of their next row, the turns of
--                     each band behind those of the one before; a place is that in the order of acceptance
--   turns       hash  origin -> HIGH:NORMAL:LOW:TAKES: the highest turn claimed in each band, the number of claims
--   ready       zset  origins that can be claimed, by the fence of the last claim of their rows. May contain others, which
--                     are removed when read. A claim reads the first ones, however many wait
--   wakes       zset  the other origins with ready rows, by the end of their pause, -inf for none. The score may be too early;
--                     then the origin is put back
--   served      zset  origins by the fence of the last claim of their rows
--   pauses      hash  origin -> UNTIL|PROBED|FENCE OF THE PROBE| and fields that only Rust reads
--   open        zset  broadcasts that are not over, by deadline
--   created     zset  AT + ID of all broadcasts, by these; AT is the time of acceptance + 2^52 in 20 digits, so that it is
--                     above 0 and sorts as the time does
--   opened      zset  the same of those that are not over
--   sweeps      set   cancelled broadcasts whose rows are being ended
--   asides      set   broadcasts that are paused, or go on and may have rows that were put aside
--   resumes     set   those of them that go on
--   new, run    zset  broadcasts to expand: not started, by due time; started, by the time from which the next page may be
--                     written
--   new:urgent, run:urgent    urgent ones
--   held        zset  paused broadcasts to expand, by the score that they have in one of these four when they go on
--   ended       zset  broadcasts that are over, by the time of their end
--   idem        hash  idempotency key -> ID
--   meta        hash  fence: the last fence; place: the last place; worker: the last number of a worker; depth: the number
--                     of rows
--
-- A row is either in its q, in its p, or in leased. One in its q may have a fence: that of a lease that has ended.

local LEASED, LATER, SERVED, TURNS = P .. ':leased', P .. ':later', P .. ':served', P .. ':turns'
local READY, WAKES, SWEEPS = P .. ':ready', P .. ':wakes', P .. ':sweeps'
local ASIDES, RESUMES = P .. ':asides', P .. ':resumes'
local OWNED, WORKERS, DEAD = P .. ':owned', P .. ':workers', 'dead'
local PAUSES, OPEN, ENDED = P .. ':pauses', P .. ':open', P .. ':ended'
local CREATED, OPENED, AT_LEN = P .. ':created', P .. ':opened', 20
local NEW, RUN, IDEM = P .. ':new', P .. ':run', P .. ':idem'
local NEW_URGENT, RUN_URGENT = P .. ':new:urgent', P .. ':run:urgent'
local HELD = P .. ':held'
local ID_LEN, PLACE_LEN = 16, 14
-- The bands of urgency, from 0, and the number of turns of each. The scores are exact.
local BANDS, BAND_TURNS = 3, 2 ^ 50
-- The names of outcomes.
local EXPIRED, CANCELLED, FAILED = 'expired', 'cancelled', 'failed'

local function numbers_key(id) return P .. ':b:' .. id end
local function content_key(id) return P .. ':c:' .. id end
local function origins_key(id) return P .. ':w:' .. id end
local function aside_key(id) return P .. ':a:' .. id end
local function states_key(id) return P .. ':s:' .. id end
local function postponed_key(id) return P .. ':p:' .. id end
local function queue_key(origin, id) return P .. ':q:' .. origin .. ':' .. id end
local function waiting_key(origin) return P .. ':o:' .. origin end

-- Returns the score of a sorted set's first member as text, nil if it is empty.
local function head(key)
  return call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
end

-- Returns the first and the last score of a band.
local function band_scores(band)
  return int(band * BAND_TURNS), int((band + 1) * BAND_TURNS - 1)
end

-- Returns the highest claimed turn of each band at an origin, and the number of claims.
local function turns_of(origin)
  local raw = call('HGET', TURNS, origin) or ''
  local high, normal, low, takes = string.match(raw, '^(%d+):(%d+):(%d+):(%d+)$')
  -- None yet, or damaged: then rows stand beside those that come.
  if not high then high, normal, low, takes = 0, 0, 0, 0 end
  return { [0] = tonumber(high), tonumber(normal), tonumber(low), takes = tonumber(takes) }
end

-- Changed queues: origin -> broadcast -> what is known of its queue: EMPTY, FIRST if it has its first rows and is in no
-- index, else UNKNOWN.
local changed = {}
local UNKNOWN, EMPTY, FIRST = 0, 1, 2

local function touch(origin, id, known)
  local ids = changed[origin]
  if not ids then
    ids = {}
    changed[origin] = ids
  end
  ids[id] = known or UNKNOWN
end

-- The counts of broadcasts read so far. Their `changed` fields are written back.
local loaded = {}
local added = 0

-- Members to add to sorted sets, with their scores, and to remove. They are written with the counts: one command for all
-- broadcasts of a script.
local entering, leaving = {}, {}

local function enter(set, score, member)
  local values = entering[set] or {}
  values[#values + 1] = score
  values[#values + 1] = member
  entering[set] = values
end

local function leave(set, member)
  local members = leaving[set] or {}
  members[#members + 1] = member
  leaving[set] = members
end

local function write_members()
  for set, values in pairs(entering) do call_many('ZADD', set, values) end
  for set, members in pairs(leaving) do call_many('ZREM', set, members) end
  entering, leaving = {}, {}
end

local COUNTED_FIELDS = { 'expected', 'written', 'rows', 'created_at', 'due_at', 'deadline' }

-- Makes a broadcast whose numbers are damaged harmless for scripts: it is not written back, its message is not returned
-- (Rust parks its rows), and its rows end at its deadline without being counted.
local function contain_damage(b)
  local fields = b.fields
  for _, name in ipairs(COUNTED_FIELDS) do
    b.is_damaged = b.is_damaged or not tonumber(fields[name])
  end
  for name, value in pairs(fields) do
    if string.sub(name, 1, 8) == 'outcome:' and not tonumber(value) then b.is_damaged = true end
  end
  if #(fields.place or '') ~= PLACE_LEN then
    fields.place = string.rep('0', PLACE_LEN)
    b.is_damaged = true
  end
  local pace = fields.pace and tonumber(fields.pace)
  if fields.pace and not (pace and pace >= 1 and pace < 2 ^ 32 and pace % 1 == 0) then b.is_damaged = true end
  if fields.held and fields.held ~= '0' and fields.held ~= '1' then b.is_damaged = true end
  local band = tonumber(fields.band)
  if not band or band < 0 or band >= BANDS or band % 1 ~= 0 then
    fields.band = '1'
    b.is_damaged = true
  end
  if b.is_damaged then
    fields.expected, fields.written, fields.rows, fields.due_at, fields.deadline = '0', '0', '0', nil, '0'
  end
end

-- Returns the member of a broadcast among those of an origin. Of a damaged one the place is uncertain.
local function waiting_member(origin, b)
  if b.is_damaged then
    for _, member in ipairs(call('ZRANGE', waiting_key(origin), 0, -1)) do
      if string.sub(member, PLACE_LEN + 1) == b.id then return member end
    end
  end
  return b.fields.place .. b.id
end

-- Returns the counts of a broadcast, false if it is unknown.
local function broadcast(id)
  local b = loaded[id]
  if b == nil then
    local flat = call('HGETALL', numbers_key(id))
    b = false
    if #flat > 0 then
      b = { id = id, fields = {}, changed = {} }
      for i = 1, #flat, 2 do b.fields[flat[i]] = flat[i + 1] end
      contain_damage(b)
      b.rows = tonumber(b.fields.rows)
      b.band = tonumber(b.fields.band)
      b.is_cancelled = b.fields.cancelled == '1'
      b.is_held = b.fields.held == '1' and not b.is_cancelled
    end
    loaded[id] = b
  end
  return b
end

-- Returns the counts of a broadcast that has rows. Those that were deleted count as damaged.
local function broadcast_of_row(id)
  local b = broadcast(id)
  if not b then
    b = { id = id, fields = {}, changed = {} }
    contain_damage(b)
    b.rows, b.band, b.is_cancelled = 0, tonumber(b.fields.band), false
    loaded[id] = b
  end
  return b
end

local function index(set, member, at)
  if at then call('ZADD', set, at, member) else call('ZREM', set, member) end
end

-- Returns the pause of an origin: its end, whether it is probed, the fence of the probe. One that cannot be read does not
-- hold: the origin pauses itself again if need be.
local function pause_of(origin)
  local raw = call('HGET', PAUSES, origin)
  if not raw then return nil end
  local ends, probed, probe, rest = string.match(raw, '^(-?%d+)|([01])|(%d*)|(.*)$')
  if not ends then return nil end
  return { ends = ends, is_probed = probed == '1', probe = probe, rest = rest }
end

-- Updates an origin in `ready` and `wakes`.
local function index_origin(origin)
  if call('EXISTS', waiting_key(origin)) == 0 then
    if call('ZREM', READY, origin) == 0 then call('ZREM', WAKES, origin) end
  elseif not call('ZSCORE', READY, origin) then
    local pause = pause_of(origin)
    call('ZADD', WAKES, pause and pause.ends or '-inf', origin)
  end
end

-- Updates the indexes of the changed queues. One that was empty begins behind the highest claimed turn. One of a paused
-- broadcast is put aside.
local function index_changed()
  for origin, ids in pairs(changed) do
    local waiting, turns = waiting_key(origin), nil
    local empty, full = {}, {}
    for id, known in pairs(ids) do
      local b = broadcast_of_row(id)
      local member = waiting_member(origin, b)
      if known == EMPTY or known == UNKNOWN and call('EXISTS', queue_key(origin, id)) == 0 then
        empty[#empty + 1] = member
        call('SREM', origins_key(id), origin)
        if b.fields.held then call('SREM', aside_key(id), origin) end
      elseif b.is_held then
        empty[#empty + 1] = member
        call('SADD', origins_key(id), origin)
        call('SADD', aside_key(id), origin)
      elseif known == FIRST or not call('ZSCORE', waiting, member) then
        turns = turns or turns_of(origin)
        full[#full + 1] = int(b.band * BAND_TURNS + turns[b.band] + 1)
        full[#full + 1] = member
        call('SADD', origins_key(id), origin)
      end
    end
    call_many('ZREM', waiting, empty)
    call_many('ZADD', waiting, full)
    index_origin(origin)
  end
  changed = {}
end

-- Updates a broadcast in `later`.
local function index_postponed(id)
  index(LATER, id, head(postponed_key(id)))
end

-- Returns whether an origin in `ready` can be claimed, and its pause. If not, moves it to `wakes`.
local function look_at_ready(origin, now)
  if call('EXISTS', waiting_key(origin)) == 1 then
    local pause = pause_of(origin)
    if not pause or tonumber(pause.ends) <= tonumber(now) then return true, pause end
    call('ZADD', WAKES, pause.ends, origin)
  end
  call('ZREM', READY, origin)
  return false
end

-- Moves up to `limit` origins whose time has come from `wakes` to `ready`. Returns whether there may be more.
local function wake(now, limit)
  local origins = call('ZRANGEBYSCORE', WAKES, '-inf', now, 'LIMIT', 0, limit)
  local served = read_many('ZMSCORE', SERVED, origins)
  local members = {}
  for i, origin in ipairs(origins) do
    members[2 * i - 1] = served[i] or 0
    members[2 * i] = origin
  end
  call_many('ZREM', WAKES, origins)
  call_many('ZADD', READY, members)
  return #origins == limit
end

local function set(b, name, value)
  b.fields[name] = value
  if not b.is_damaged then b.changed[name] = true end
end

-- Counts an outcome without changing the number of rows.
local function count(b, outcome, number)
  local name = 'outcome:' .. outcome
  set(b, name, int((tonumber(b.fields[name] or '0') or 0) + number))
end

-- Changes the number of rows.
local function add_rows(b, number)
  b.rows = b.rows + number
  -- Of a damaged broadcast too: `depth` is the number of all rows.
  added = added + number
  set(b, 'rows', int(b.rows))
end

-- Counts ended rows.
local function finish(b, outcome, number)
  count(b, outcome, number)
  add_rows(b, -number)
end

-- Moves a broadcast to expand out of the sets that every look reads when it is paused, and back when it goes on.
local function index_held(b)
  if b.is_damaged or b.fields.expanding ~= '1' then return end
  local is_new = b.fields.cursor == ''
  local set = b.band == 0 and (is_new and NEW_URGENT or RUN_URGENT) or (is_new and NEW or RUN)
  local from, to = set, HELD
  if not b.is_held then from, to = HELD, set end
  local score = call('ZSCORE', from, b.id)
  if score then
    call('ZREM', from, b.id)
    call('ZADD', to, score, b.id)
  end
end

-- Ends the expansion. Recipients that were expected and not written count as `outcome`.
local function give_up_unwritten(b, outcome)
  if b.fields.expanding ~= '1' then return end
  set(b, 'expanding', '0')
  call('ZREM', b.band == 0 and NEW_URGENT or NEW, b.id)
  call('ZREM', b.band == 0 and RUN_URGENT or RUN, b.id)
  call('ZREM', HELD, b.id)
  local unwritten = tonumber(b.fields.expected) - tonumber(b.fields.written)
  if unwritten > 0 then
    count(b, outcome, unwritten)
    set(b, 'written', b.fields.expected)
  end
end

-- Returns the member of a broadcast that was accepted at a time in `created` and `opened`.
local function created_member(id, at)
  return string.format('%020.0f', (tonumber(at) or 0) + 2 ^ 52) .. id
end

local function samples_key(id) return P .. ':f:' .. id end

-- Deletes a broadcast that was accepted at a time, with its idempotency key. Its members are removed by `write_members`.
local function forget(id, at, key)
  if at then
    local member = created_member(id, at)
    leave(CREATED, member)
    leave(OPENED, member)
  end
  call('DEL', numbers_key(id), samples_key(id))
  leave(ENDED, id)
  if key and call('HGET', IDEM, key) == id then call('HDEL', IDEM, key) end
end

-- Returns whether a broadcast has just ended.
local function is_over(b)
  return b.rows == 0 and b.fields.expanding == '0' and not b.fields.ended_at and not b.is_damaged
end

-- Writes the changed fields of a broadcast.
local function write_changed(b)
  local flat = {}
  for name in pairs(b.changed) do
    flat[#flat + 1] = name
    flat[#flat + 1] = b.fields[name]
  end
  call('HSET', numbers_key(b.id), unpack(flat))
  b.changed = {}
end

-- Writes changed counts back, and wipes the content of broadcasts that are over.
local function save_changed(now)
  -- Before those to remove, which may be the same.
  write_members()
  for id, b in pairs(loaded) do
    if b and next(b.changed) then
      local fields = b.fields
      if is_over(b) then
        call('UNLINK', content_key(id), origins_key(id), states_key(id), aside_key(id))
        leave(OPEN, id)
        leave(OPENED, created_member(id, fields.created_at))
        if fields.held then
          call('SREM', ASIDES, id)
          call('SREM', RESUMES, id)
        end
        if fields.forget == '1' then
          forget(id, fields.created_at, fields.idem)
        else
          set(b, 'ended_at', now)
          enter(ENDED, now, id)
          write_changed(b)
        end
      else
        write_changed(b)
      end
    end
  end
  write_members()
  if added ~= 0 and call('HINCRBY', META, 'depth', int(added)) == 0 then
    call('HDEL', META, 'depth')
  end
  loaded, added = {}, 0
end

-- Returns the parts of a row's state, nil if it is damaged.
local function state(raw)
  local fence, attempts, origin = string.match(raw, '^(%d+):(%d+):(.*)$')
  if not fence then return nil end
  return { fence = fence, attempts = attempts, origin = origin }
end

local function raw_state(fence, attempts, origin)
  return fence .. ':' .. attempts .. ':' .. origin
end

local function write_pause(origin, pause)
  local probed = pause.is_probed and '1' or '0'
  call('HSET', PAUSES, origin, pause.ends .. '|' .. probed .. '|' .. pause.probe .. '|' .. pause.rest)
end

-- Makes a probed origin due for its next probe if the ended row was the probe. A claim takes one row of a probed origin,
-- so the fence identifies it.
local function end_probe(origin, fence, now)
  local pause = pause_of(origin)
  if pause and pause.probe == fence then
    pause.probe, pause.ends = '', now
    write_pause(origin, pause)
    changed[origin] = changed[origin] or {}
  end
end

-- Ends all waiting rows of a cancelled broadcast at an origin.
local function end_queue(origin, b)
  local queue = queue_key(origin, b.id)
  finish(b, CANCELLED, call('ZCARD', queue))
  call('UNLINK', queue)
  touch(origin, b.id)
end

-- Ends postponed rows of a broadcast, at most `limit`. Returns their number.
local function end_postponed(b, outcome, limit)
  local ended = call('ZREMRANGEBYRANK', postponed_key(b.id), 0, limit - 1)
  if ended > 0 then
    finish(b, outcome, ended)
    index_postponed(b.id)
  end
  return ended
end

-- Ends rows of a cancelled broadcast that are not leased: postponed ones, then those at some of its origins. Returns
-- whether there may be more.
local function sweep(b)
  local AT_ONCE, ROWS_AT_ONCE = 250, 1000
  if end_postponed(b, CANCELLED, ROWS_AT_ONCE) == ROWS_AT_ONCE then return true end
  local origins = call('SRANDMEMBER', origins_key(b.id), AT_ONCE)
  for _, origin in ipairs(origins) do end_queue(origin, b) end
  if #origins == AT_ONCE then return true end
  call('SREM', SWEEPS, b.id)
  return false
end

-- Makes rows ready that were put aside while their broadcast was paused, at some of its origins. Returns whether there may
-- be more.
local function bring_back(b)
  local AT_ONCE = 250
  local origins = call('SRANDMEMBER', aside_key(b.id), AT_ONCE)
  for _, origin in ipairs(origins) do
    call('SREM', aside_key(b.id), origin)
    touch(origin, b.id)
  end
  if #origins == AT_ONCE then return true end
  call('SREM', RESUMES, b.id)
  call('SREM', ASIDES, b.id)
  return false
end

-- Makes up to `limit` rows whose lease has ended ready: their claimant may still settle them until the next claim. Rows of a
-- cancelled broadcast end here before its deadline. After it they are expired, which counts them. Returns whether there may
-- be more.
local function end_leases(now, limit)
  local rows = call('ZRANGEBYSCORE', LEASED, '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit)
  for i = 1, #rows, 2 do
    local member, at = rows[i], rows[i + 1]
    local id, recipient = string.sub(member, 1, ID_LEN), string.sub(member, ID_LEN + 1)
    local b = broadcast(id)
    local raw = call('HGET', states_key(id), recipient)
    call('ZREM', LEASED, member)
    call('ZREM', OWNED, member)
    local row = raw and state(raw)
    if not b then
      -- By damage it ended before its last row, which is still counted in `depth`.
      added = added - 1
    elseif not row then
      -- Nothing says where it belongs.
      call('HDEL', states_key(id), recipient)
      finish(b, FAILED, 1)
    elseif b.is_cancelled and tonumber(b.fields.deadline) > tonumber(now) then
      end_probe(row.origin, row.fence, now)
      call('HDEL', states_key(id), recipient)
      finish(b, CANCELLED, 1)
    else
      call('ZADD', queue_key(row.origin, id), at, recipient)
      touch(row.origin, id)
    end
  end
  if #rows > 0 then
    index_changed()
    save_changed(now)
  end
  return #rows >= 2 * limit
end

-- Continues an incomplete cancellation, or the end of a pause. If there is none, ends leases. Returns whether there may be
-- more.
local function lapse(now, limit)
  local id = call('SRANDMEMBER', SWEEPS)
  if id then
    local b = broadcast(id)
    if b then sweep(b) else call('SREM', SWEEPS, id) end
    index_changed()
    save_changed(now)
    return true
  end
  id = call('SRANDMEMBER', RESUMES)
  if id then
    local b = broadcast(id)
    if b then bring_back(b) else call('SREM', RESUMES, id) end
    index_changed()
    save_changed(now)
    return true
  end
  return end_leases(now, limit)
end

-- Makes up to `limit` postponed rows ready whose time has come. Returns whether there may be more.
local function wake_postponed(now, limit)
  local left = limit
  while left > 0 do
    local id, first = unpack(call('ZRANGE', LATER, 0, 0, 'WITHSCORES'))
    if not id or tonumber(first) > tonumber(now) then break end
    local rows = call('ZRANGEBYSCORE', postponed_key(id), '-inf', now, 'WITHSCORES', 'LIMIT', 0, left)
    local recipients = {}
    for i = 1, #rows, 2 do recipients[#recipients + 1] = rows[i] end
    local states = read_many('HMGET', states_key(id), recipients)
    for i, recipient in ipairs(recipients) do
      local row = states[i] and state(states[i])
      if row then
        call('ZADD', queue_key(row.origin, id), rows[2 * i], recipient)
        touch(row.origin, id)
      else
        -- Nothing says where it belongs.
        call('HDEL', states_key(id), recipient)
        finish(broadcast_of_row(id), FAILED, 1)
      end
    end
    call_many('ZREM', postponed_key(id), recipients)
    index_postponed(id)
    left = left - math.max(#recipients, 1)
  end
  if left < limit then
    index_changed()
    save_changed(now)
  end
  return left <= 0
end

-- Returns the counts of a broadcast as a reply.
local function answer(id)
  local b = broadcast(id)
  local flat = {}
  for name, value in pairs(b.fields) do
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  return { id, flat }
end

-- The time from which the next page of a broadcast may be written, as `BroadcastProgress::next_page_at` tells it.
local function next_page_at(b, rows, expand_at, now, longest)
  local pace = tonumber(b.fields.pace or '')
  if not pace then return now end
  local time = math.min(math.ceil(rows * 1000 / pace), longest)
  local since = tonumber(expand_at)
  if since > tonumber(now) + longest then since = tonumber(now) end
  return int(math.max(tonumber(now), since + time))
end

-- Writes a page of recipients and moves the cursor. `longest` is the longest time of a page of a paced one. Its arguments
-- begin at `from` and end at `to`: the next cursor, then for each origin: the origin, the number of recipients, the recipients.
-- Skips pending recipients. A recipient's key determines its origin. The caller updates the indexes and saves the counts.
local function write_page(b, now, longest, from, to)
  local id, next_cursor, END = b.id, ARGV[from], 'E'
  local has_states = not b.is_new and call('EXISTS', states_key(id)) == 1
  local due_at = b.fields.due_at
  local is_due = tonumber(due_at) <= tonumber(now)
  local written = 0
  local i = from + 1
  while i <= to do
    local origin, last = ARGV[i], i + 1 + ARGV[i + 1]
    local queue = queue_key(origin, id)
    -- Behind rows that are ready already, as after a retry.
    local at = due_at
    local behind = not b.is_new and call('ZREVRANGE', queue, 0, 0, 'WITHSCORES')[2]
    if behind and tonumber(behind) > tonumber(at) then at = behind end
    local rows, states = {}, {}
    for first = i + 2, last, GROUP do
      local recipients = {}
      for place = first, math.min(first + GROUP - 1, last) do recipients[#recipients + 1] = ARGV[place] end
      local known = has_states and read_many('HMGET', states_key(id), recipients) or {}
      for place, recipient in ipairs(recipients) do
        if not known[place] then
          rows[#rows + 1] = at
          rows[#rows + 1] = recipient
          states[#states + 1] = recipient
          states[#states + 1] = raw_state('0', '0', origin)
        end
      end
    end
    -- Rows that are not due yet wait as those of a retry do.
    local set = is_due and queue or postponed_key(id)
    for first = 1, #rows, GROUP do
      local some = { unpack(rows, first, math.min(first + GROUP - 1, #rows)) }
      written = written + call('ZADD', set, 'NX', unpack(some))
    end
    if is_due then
      touch(origin, id, b.is_new and #rows > 0 and FIRST)
    else
      call_many('HSET', states_key(id), states)
    end
    i = last + 1
  end
  if not is_due then index_postponed(id) end
  set(b, 'written', int(tonumber(b.fields.written) + written))
  add_rows(b, written)
  set(b, 'cursor', next_cursor)
  local run = b.band == 0 and RUN_URGENT or RUN
  if not b.is_new then call('ZREM', b.band == 0 and NEW_URGENT or NEW, id) end
  if next_cursor ~= END then
    local before = not b.is_new and call('ZSCORE', run, id)
    call('ZADD', run, next_page_at(b, written, before or due_at, now, longest), id)
  else
    set(b, 'expanding', '0')
    if not b.is_new then call('ZREM', run, id) end
  end
end

local BROADCAST_ARGS = 17

-- Returns the place of the arguments behind those of a broadcast to open, which begin at `first`.
local function behind_broadcast(first)
  return first + BROADCAST_ARGS + 1 + ARGV[first + BROADCAST_ARGS]
end

-- Opens a broadcast from the arguments that begin at `first`: 17 of its own, the number of those of its first page, and
-- these. Returns 'new', 'conflict', or the counts of the known broadcast. The caller updates the indexes and saves the counts.
-- What is damaged where only this broadcast needs it is an error before the first write.
local function open_broadcast(first)
  local id, now, send_at, due_at, deadline, pace, expected, idem, print, forgettable, audience, payload, ttl, urgency, topic, padding,
    trace_parent =
    unpack(ARGV, first, first + BROADCAST_ARGS - 1)
  if call('EXISTS', numbers_key(id)) == 1 then return answer(id) end
  local known = idem ~= '' and call('HGET', IDEM, idem)
  if known and call('HGET', numbers_key(known), 'print') ~= print then return 'conflict' end
  if known then return answer(known) end
  local page, last = first + BROADCAST_ARGS, behind_broadcast(first) - 1
  local i = page + 2
  while i <= last do
    if not changed[ARGV[i]] then call('ZCARD', waiting_key(ARGV[i])) end
    i = i + 2 + ARGV[i + 1]
  end

  local place = string.format('%014.0f', call('HINCRBY', META, 'place', 1))
  if idem ~= '' then call('HSET', IDEM, idem, id) end
  local band = ({ high = '0', normal = '1' })[urgency] or '2'
  local b = { id = id, fields = {}, changed = {}, rows = 0, band = tonumber(band), is_new = true }
  loaded[id] = b
  set(b, 'place', place)
  set(b, 'band', band)
  set(b, 'created_at', now)
  set(b, 'due_at', due_at)
  set(b, 'deadline', deadline)
  set(b, 'expected', expected)
  set(b, 'written', '0')
  set(b, 'rows', '0')
  set(b, 'expanding', '1')
  set(b, 'cancelled', '0')
  set(b, 'forget', forgettable)
  set(b, 'cursor', '')
  if send_at ~= '' then set(b, 'send_at', send_at) end
  if pace ~= '' then set(b, 'pace', pace) end
  if idem ~= '' then
    set(b, 'idem', idem)
    set(b, 'print', print)
  end
  local content = { 'audience', audience, 'ttl', ttl, 'urgency', urgency, 'padding', padding }
  local function add(name, value)
    content[#content + 1] = name
    content[#content + 1] = value
  end
  -- The payload is prefixed, to tell an empty one from none.
  if payload ~= '' then add('payload', string.sub(payload, 2)) end
  if topic ~= '' then add('topic', topic) end
  if trace_parent ~= '' then add('trace_parent', trace_parent) end
  call('HSET', content_key(id), unpack(content))
  if ARGV[page] ~= '0' then
    write_page(b, now, 0, page + 1, last)
  else
    enter(band == '0' and NEW_URGENT or NEW, due_at, id)
  end
  enter(OPEN, deadline, id)
  local member = created_member(id, now)
  enter(CREATED, 0, member)
  enter(OPENED, 0, member)
  if is_over(b) then
    index_changed()
    save_changed(now)
  else
    write_changed(b)
  end
  return 'new'
end
