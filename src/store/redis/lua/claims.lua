-- Claiming and settling rows, and the next due time.

-- Rows that one script makes ready.
local WOKEN_AT_ONCE = 200

-- Makes rows whose lease has ended ready, and does no work of other broadcasts. ARGV: now. Returns whether there may be more.
function operations.lapse()
  even_when_full()
  return end_leases(ARGV[1], WOKEN_AT_ONCE) and 1 or 0
end

-- Returns origins with claimable rows, among which Rust deals (L5), those served longest ago first.
-- ARGV: now, the number of wanted rows, the number of members of `ready` to skip, whether rows whose time has come are
-- made ready first, and whether only the origins are read whose names follow. Returns whether the call has to be repeated because indexes were updated; the number of members to
-- skip next; whether there may be more; and for each origin: its name, the fence of its last claim, whether it is probed, a
-- lower bound for its ready rows, and whether that is exact.
function operations.heads()
  even_when_full()
  local now, wanted, passed, wakes_rows, is_named = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5] == '1'
  local AT_ONCE = 500
  -- The most broadcasts at one origin whose rows are counted. Others count as one row.
  local COUNTED = 32
  if wakes_rows and (lapse(now, WOKEN_AT_ONCE) or wake_postponed(now, WOKEN_AT_ONCE)) then return { 1, passed, 1, {} } end
  if wake(now, AT_ONCE) then return { 1, passed, 1, {} } end
  local origins
  if is_named then
    local named = { unpack(ARGV, 6) }
    origins = {}
    for i, served in ipairs(read_many('ZMSCORE', READY, named)) do
      if served then
        origins[#origins + 1] = named[i]
        origins[#origins + 1] = served
      end
    end
  else
    origins = call('ZRANGE', READY, passed, passed + AT_ONCE - 1, 'WITHSCORES')
  end
  local found = {}
  for i = 1, #origins, 2 do
    local origin = origins[i]
    local is_claimable, pause = look_at_ready(origin, now)
    if is_claimable then
      local broadcasts = call('ZCARD', waiting_key(origin))
      local rows = broadcasts
      if rows < wanted then
        for _, member in ipairs(call('ZRANGE', waiting_key(origin), 0, COUNTED - 1)) do
          rows = rows - 1 + call('ZCARD', queue_key(origin, string.sub(member, PLACE_LEN + 1)))
        end
      end
      found[#found + 1] = {
        origin, origins[i + 1], pause and pause.is_probed and 1 or 0, rows, broadcasts <= COUNTED and 1 or 0,
      }
    end
  end
  -- Origins that cannot be claimed have left the set.
  return { 0, passed + #found, not is_named and #origins == 2 * AT_ONCE and 1 or 0, found }
end

-- An eighth of a number of rows, as `rules::shares` rounds it.
local function eighth(rows, take)
  local half = rows % 8 + take % 8 >= 8 and 1 or 0
  return math.floor(rows / 8) + half
end

-- Shares rows among the bands of an origin, as `rules::shares` does.
local function shares(wanted, take, ready)
  local high, normal, low = ready[0], ready[1], ready[2]
  local for_others = math.min(eighth(wanted, take), normal + low)
  high = math.min(high, wanted - for_others)
  local rest = wanted - high
  local for_low = math.min(eighth(rest, take + math.floor(take / 8)), low)
  normal = math.min(normal, rest - for_low)
  low = math.min(low, rest - normal)
  return { [0] = high, normal, low }
end

-- The queues of one band at an origin in the order of turns, read as far as they are needed. Ends queues of cancelled
-- broadcasts on the way and puts those of paused ones aside, `spare.queues` of them at most, and passes over others.
local function line_of(origin, band, most, spare)
  local first, last = band_scores(band)
  local members = call('ZRANGEBYSCORE', waiting_key(origin), first, last, 'WITHSCORES', 'LIMIT', 0, most + spare.queues)
  local line = { queues = {}, read = 0 }

  -- Returns the turn of the next queue that was not read.
  function line.next_turn()
    local score = members[2 * line.read + 2]
    return score and tonumber(score) - band * BAND_TURNS
  end

  function line.read_next()
    local turn, member = line.next_turn(), members[2 * line.read + 1]
    line.read = line.read + 1
    local id = string.sub(member, PLACE_LEN + 1)
    -- By damage a broadcast may have two members: its rows are claimed once.
    if spare.seen[id] then return end
    spare.seen[id] = true
    local b = broadcast_of_row(id)
    if b.is_held then
      if spare.queues > 0 then
        spare.queues, spare.has_asides = spare.queues - 1, true
        touch(origin, id)
      end
    elseif not b.is_cancelled then
      local rows = call('ZCARD', queue_key(origin, id))
      line.queues[#line.queues + 1] = { id = id, member = member, turn = turn, rows = rows }
    elseif spare.queues > 0 then
      -- Its cancellation has not reached this origin yet.
      spare.queues = spare.queues - 1
      end_queue(origin, b)
    end
  end

  -- Deals up to `wanted` rows among the queues, turn by turn. Returns their number.
  function line.deal(wanted)
    for _, queue in ipairs(line.queues) do queue.taken = 0 end
    local dealt, turn, begun, active = 0, 0, 0, {}
    while dealt < wanted do
      while true do
        local queue = line.queues[begun + 1]
        local next_turn = queue and queue.turn or line.next_turn()
        if next_turn and #active == 0 and next_turn > turn then turn = next_turn end
        if not next_turn or next_turn > turn or #active >= wanted - dealt then break end
        if queue then
          queue.taken = 0
          active[#active + 1] = queue
          begun = begun + 1
        else
          line.read_next()
        end
      end
      if #active == 0 then break end
      local still = {}
      for _, queue in ipairs(active) do
        if dealt < wanted and queue.taken < queue.rows then
          queue.taken = queue.taken + 1
          dealt = dealt + 1
        end
        if queue.taken < queue.rows then still[#still + 1] = queue end
      end
      active = still
      turn = turn + 1
    end
    return dealt
  end

  return line
end

-- Claims rows (L5, L6, L18). ARGV: now, the end of the lease, the number of the worker or nothing, then for each origin: its
-- name, the limit of rows.
-- Returns the fence, the rows (origin, broadcast, recipient, attempt), each broadcast's times and content, and whether rows of
-- paused broadcasts were put aside.
function operations.claim()
  even_when_full()
  local now, leased_until, worker = ARGV[1], ARGV[2], ARGV[3]
  call('HINCRBY', META, 'fence', 1)
  -- As text: Lua's numbers are doubles.
  local fence = call('HGET', META, 'fence')
  local rows, contents, known, has_asides = {}, {}, {}, false
  -- The most queues of cancelled and paused broadcasts at one origin that a claim ends or puts aside.
  local CANCELLED_AT_ONCE = 32

  -- Leases the first rows of queues at an origin, as many of each as were taken. Reads what may be damaged before the first write.
  local function lease(origin, queues)
    local members, owned, emptied, moved = {}, {}, {}, {}
    for _, queue in ipairs(queues) do
      queue.recipients = call('ZRANGE', queue_key(origin, queue.id), 0, queue.taken - 1)
      queue.states = read_many('HMGET', states_key(queue.id), queue.recipients)
      if not known[queue.id] then
        known[queue.id] = true
        local b = broadcast_of_row(queue.id)
        local content = redis.pcall('HGETALL', content_key(queue.id))
        -- Its rows are claimed without it.
        if content.err then content = {} end
        contents[#contents + 1] = { queue.id, b.fields.due_at, b.fields.deadline, content }
      end
    end
    for _, queue in ipairs(queues) do
      local id, new_states = queue.id, {}
      for i, recipient in ipairs(queue.recipients) do
        local attempt = 1
        local before = queue.states[i] and state(queue.states[i])
        if before then attempt = before.attempts + 1 end
        members[#members + 1] = leased_until
        members[#members + 1] = id .. recipient
        owned[#owned + 1] = worker
        owned[#owned + 1] = id .. recipient
        new_states[2 * i - 1] = recipient
        new_states[2 * i] = raw_state(fence, int(attempt), origin)
        rows[#rows + 1] = { origin, id, recipient, attempt }
      end
      call_many('HSET', states_key(id), new_states)
      if queue.taken < queue.rows then
        call_many('ZREM', queue_key(origin, id), queue.recipients)
        moved[#moved + 1] = queue.next_turn
        moved[#moved + 1] = queue.member
      else
        emptied[#emptied + 1] = queue_key(origin, id)
      end
      touch(origin, id, queue.taken == queue.rows and EMPTY)
    end
    call_many('ZADD', LEASED, members)
    if worker ~= '' then call_many('ZADD', OWNED, owned) end
    call_many('ZADD', waiting_key(origin), moved)
    if #emptied > 0 then call('DEL', unpack(emptied)) end
  end

  for i = 4, #ARGV, 2 do
    local origin, wanted = ARGV[i], tonumber(ARGV[i + 1])
    local pause = pause_of(origin)
    local is_probed = pause and pause.is_probed
    if pause and tonumber(pause.ends) > tonumber(now) then
      wanted = 0
    elseif is_probed then
      wanted = math.min(wanted, 1)
    end
    local turns = turns_of(origin)
    -- The probe of a paused origin is the most urgent row.
    local take = is_probed and 0 or turns.takes
    local spare = { queues = CANCELLED_AT_ONCE, seen = {} }
    local lines, ready = {}, {}
    local left = wanted
    for band = 0, BANDS - 1 do
      -- Of a band behind others no more rows can be claimed than these leave, or their share.
      local most = wanted > 0 and math.max(left, eighth(wanted, take) + 1) or 0
      lines[band] = line_of(origin, band, most, spare)
      ready[band] = lines[band].deal(most)
      left = math.max(left - ready[band], 0)
    end
    local of_bands = shares(wanted, take, ready)
    local taken, queues = 0, {}
    for band = 0, BANDS - 1 do
      taken = taken + lines[band].deal(of_bands[band])
      for _, queue in ipairs(lines[band].queues) do
        if queue.taken > 0 then
          queues[#queues + 1] = queue
          turns[band] = math.max(turns[band], queue.turn + queue.taken - 1)
          queue.next_turn = int(band * BAND_TURNS + queue.turn + queue.taken)
        end
      end
    end
    lease(origin, queues)
    has_asides = has_asides or spare.has_asides
    index_changed()
    if taken > 0 then
      call('HSET', TURNS, origin, table.concat({ int(turns[0]), int(turns[1]), int(turns[2]), int(turns.takes + 1) }, ':'))
      call('ZADD', SERVED, fence, origin)
      call('ZADD', READY, 'XX', fence, origin)
      if is_probed then
        pause.ends, pause.probe = leased_until, fence
        write_pause(origin, pause)
      end
    end
  end
  save_changed(now)
  return { fence, rows, contents, has_asides and 1 or 0 }
end

-- Returns the kind of a sample: its outcome, status and reason, after its time, recipient and push service.
local function kind_of(line)
  return string.match(line, '^%S+ %S+ %S+ (.+)$') or ''
end

-- Adds samples of failed rows to those of a broadcast, as `rules::sample` decides (L25).
local function add_samples(id, fresh)
  local SAMPLES = 32
  local lines, kinds, numbers = {}, {}, {}
  local function add(line)
    local kind = kind_of(line)
    lines[#lines + 1], kinds[#kinds + 1] = line, kind
    numbers[kind] = (numbers[kind] or 0) + 1
  end
  -- What cannot be read is written anew: outcomes do not depend on samples.
  local stored = redis.pcall('GET', samples_key(id))
  if type(stored) ~= 'string' then stored = '' end
  for line in string.gmatch(stored, '[^\n]+') do add(line) end
  local is_changed = false
  for _, new in ipairs(fresh) do
    local most, number = nil, 0
    for _, kind in ipairs(kinds) do
      if numbers[kind] > number then most, number = kind, numbers[kind] end
    end
    local has_room = #lines < SAMPLES
    if not has_room and (numbers[kind_of(new)] or 0) + 1 < number then
      for i = #lines, 1, -1 do
        if kinds[i] == most then
          table.remove(lines, i)
          table.remove(kinds, i)
          break
        end
      end
      numbers[most] = number - 1
      has_room = true
    end
    if has_room then
      add(new)
      is_changed = true
    end
  end
  if is_changed then call('SET', samples_key(id), table.concat(lines, '\n')) end
end

-- Finishes, postpones or releases claimed rows atomically (L7, L8).
-- ARGV: now, then for each row: broadcast, recipient, fence, and the settlement: the name of an outcome, with '!' and a
-- sample if it failed, '+' and the time of the next attempt, or '-' and the time to repeat the same attempt. Returns a text with '1' for each valid token and
-- '0' for others.
function operations.settle()
  even_when_full()
  local now = ARGV[1]

  -- Read the states of all rows, by broadcast.
  local recipients_of, members = {}, {}
  for i = 2, #ARGV, 4 do
    local list = recipients_of[ARGV[i]] or {}
    list[#list + 1] = ARGV[i + 1]
    recipients_of[ARGV[i]] = list
    members[#members + 1] = ARGV[i] .. ARGV[i + 1]
  end
  local is_leased = {}
  for i, at in ipairs(read_many('ZMSCORE', LEASED, members)) do is_leased[members[i]] = at end
  local states_of = {}
  for id, recipients in pairs(recipients_of) do
    local states = {}
    local raw = read_many('HMGET', states_key(id), recipients)
    for i, recipient in ipairs(recipients) do
      local row = raw[i] and state(raw[i])
      if row and not states[recipient] then
        -- The lease has ended: the token stays valid until another claim.
        row.has_lapsed = not is_leased[id .. recipient]
        local waits = row.has_lapsed and call('ZSCORE', queue_key(row.origin, id), recipient)
        if not row.has_lapsed or waits then states[recipient] = row end
      end
    end
    states_of[id] = states
  end

  local answers = {}
  local probes = {}
  local unleased, ended, back, failed = {}, {}, {}, {}
  local is_due = false

  local function put(lists, id, ...)
    local list = lists[id]
    if not list then
      list = {}
      lists[id] = list
    end
    for _, value in ipairs({ ... }) do list[#list + 1] = value end
  end

  for i = 2, #ARGV, 4 do
    local id, recipient, fence, what = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    local row = states_of[id][recipient]
    local b = broadcast(id)
    local is_held = b and row and row.fence == fence and fence ~= '0'
    answers[#answers + 1] = is_held and '1' or '0'
    if is_held then
      probes[row.origin .. ' ' .. fence] = { row.origin, fence }
      unleased[#unleased + 1] = id .. recipient
      if row.has_lapsed then
        call('ZREM', queue_key(row.origin, id), recipient)
        touch(row.origin, id)
      end
      local kind, at = string.match(what, '^([+-])(.*)$')
      if kind and not b.is_cancelled then
        local attempts = row.attempts
        if kind == '-' then attempts = int(math.max(attempts - 1, 0)) end
        is_due = is_due or tonumber(at) <= tonumber(now)
        call('ZADD', postponed_key(id), at, recipient)
        put(back, id, recipient, raw_state('0', attempts, row.origin))
        row.fence = '0'
      else
        local outcome, sample = string.match(what, '^([a-z_]+)!(.*)$')
        finish(b, kind and CANCELLED or outcome or what, 1)
        if sample then put(failed, id, sample) end
        put(ended, id, recipient)
        states_of[id][recipient] = nil
      end
    end
  end
  call_many('ZREM', LEASED, unleased)
  call_many('ZREM', OWNED, unleased)
  for id, recipients in pairs(ended) do
    -- Of one that is over all states are deleted.
    if not is_over(broadcast(id)) then call_many('HDEL', states_key(id), recipients) end
  end
  for id, states in pairs(back) do
    call_many('HSET', states_key(id), states)
    index_postponed(id)
  end
  for _, probe in pairs(probes) do end_probe(probe[1], probe[2], now) end
  -- Before the broadcasts, which may be forgotten.
  for id, samples in pairs(failed) do add_samples(id, samples) end
  index_changed()
  save_changed(now)
  if is_due then hint() end
  return table.concat(answers)
end

-- Returns the times at which there may be something to claim, expand or expire (L14). ARGV: now. Broadcasts that are
-- expandable now are read elsewhere. Returns first whether the call has to be repeated because indexes were updated.
function operations.next_due()
  even_when_full()
  local now = ARGV[1]
  if call('EXISTS', RESUMES) == 1 then return { 0, now } end
  -- The most origins read in one call.
  local LOOKS = 200
  local looks = 0
  -- Returns whether an origin in `ready` can be claimed, nil if that is not known yet.
  local function is_ready()
    while looks < LOOKS do
      looks = looks + 1
      local origin = call('ZRANGE', READY, 0, 0)[1]
      if not origin then return false end
      if look_at_ready(origin, now) then return true end
    end
  end
  local is_claimable = is_ready()
  if is_claimable == false then
    -- A cancellation is completed first: its rows are not claimed.
    if lapse(now, WOKEN_AT_ONCE) then return { 1 } end
    local has_more = wake_postponed(now, WOKEN_AT_ONCE)
    has_more = wake(now, LOOKS) or has_more
    is_claimable = is_ready()
    if has_more and not is_claimable then is_claimable = nil end
  end
  if is_claimable then return { 0, now } end
  if is_claimable == nil then return { 1 } end
  local moments = { 0 }
  local pause_ends
  repeat
    if looks == LOOKS then return { 1 } end
    looks = looks + 1
    local origin, at = unpack(call('ZRANGE', WAKES, 0, 0, 'WITHSCORES'))
    if not origin then break end
    index_origin(origin)
    local from = call('ZSCORE', WAKES, origin)
    if from == at then pause_ends = at end
  until pause_ends
  if pause_ends then moments[#moments + 1] = pause_ends end
  for _, set in ipairs({ LEASED, LATER }) do
    local at = head(set)
    if at then moments[#moments + 1] = at end
  end
  for _, set in ipairs({ NEW, RUN, NEW_URGENT, RUN_URGENT, OPEN }) do
    local later = call('ZRANGEBYSCORE', set, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if later[2] then moments[#moments + 1] = later[2] end
  end
  return moments
end

-- Returns statistics. ARGV: now, the origins whose rows are always looked at. Returns the numbers of rows and leased rows, and the first times, each behind its origin: of
-- leased rows, of postponed rows, and of the ready rows that are next in each band of these and some other origins.
function operations.stats()
  local ORIGINS = 200
  local origins = call('ZRANGE', READY, 0, ORIGINS - 1)
  if #origins < ORIGINS then
    for _, origin in ipairs(call('ZRANGE', WAKES, 0, ORIGINS - #origins - 1)) do origins[#origins + 1] = origin end
  end
  for i = 2, #ARGV do origins[#origins + 1] = ARGV[i] end
  local answer = {
    tonumber(call('HGET', META, 'depth') or '0'),
    call('ZCOUNT', LEASED, '(' .. ARGV[1], '+inf'),
  }
  local function note(origin, at)
    answer[#answer + 1] = origin
    answer[#answer + 1] = at
  end
  local function note_row(id, recipient, at)
    local row = state(call('HGET', states_key(id), recipient) or '')
    note(row and row.origin or '', at)
  end
  local leased, ends = unpack(call('ZRANGE', LEASED, 0, 0, 'WITHSCORES'))
  if leased then note_row(string.sub(leased, 1, ID_LEN), string.sub(leased, ID_LEN + 1), ends) end
  local later, due = unpack(call('ZRANGE', LATER, 0, 0, 'WITHSCORES'))
  if later then note_row(later, call('ZRANGE', postponed_key(later), 0, 0)[1] or '', due) end
  for _, origin in ipairs(origins) do
    for band = 0, BANDS - 1 do
      local first, last = band_scores(band)
      local member = call('ZRANGEBYSCORE', waiting_key(origin), first, last, 'LIMIT', 0, 1)[1]
      if member then
        local id = string.sub(member, PLACE_LEN + 1)
        local recipient, at = unpack(call('ZRANGE', queue_key(origin, id), 0, 0, 'WITHSCORES'))
        -- A row that was written behind others has their time.
        local is_known = call('HEXISTS', states_key(id), recipient) == 1
        note(origin, is_known and at or call('HGET', numbers_key(id), 'due_at') or '')
      end
    end
  end
  return answer
end
