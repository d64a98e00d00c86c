-- Claiming and settling rows, and the next due time.

-- Makes rows whose lease has ended claimable. ARGV: now. Returns whether there may be more.
function operations.lapse()
  even_when_full()
  return lapse(ARGV[1], 200) and 1 or 0
end

-- Returns origins with claimable rows, among which Rust deals (L5), those served longest ago first.
-- ARGV: now, the number of wanted rows, the number of members of `ready` to skip. Returns whether the call has to be
-- repeated because indexes were updated; the number of members to skip next; whether there may be more; and for each
-- origin: its name, its first time, the fence of its last claim, whether it is probed, a lower bound for its due rows, and
-- whether that is exact.
function operations.heads()
  even_when_full()
  local now, wanted, passed = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
  local AT_ONCE = 500
  -- The most broadcasts at one origin whose rows are counted. Others count as one row.
  local COUNTED = 32
  if lapse(now, 200) or wake(now, AT_ONCE) then return { 1, passed, 1, {} } end
  local origins = call('ZRANGE', READY, passed, passed + AT_ONCE - 1, 'WITHSCORES')
  local found = {}
  for i = 1, #origins, 2 do
    local origin = origins[i]
    local first, pause = look_at_ready(origin, now)
    if first then
      local broadcasts = call('ZCOUNT', waiting_key(origin), '-inf', now)
      local rows = broadcasts
      if rows < wanted then
        local some = call('ZRANGEBYSCORE', waiting_key(origin), '-inf', now, 'LIMIT', 0, COUNTED)
        for _, member in ipairs(some) do
          local id = string.sub(member, TURN_LEN + 1)
          rows = rows - 1 + call('ZCOUNT', queue_key(origin, id), '-inf', now)
        end
      end
      found[#found + 1] = {
        origin, first, origins[i + 1], pause and pause.is_probed and 1 or 0, rows, broadcasts <= COUNTED and 1 or 0,
      }
    end
  end
  -- Origins that are not due have left the set.
  return { 0, passed + #found, #origins == 2 * AT_ONCE and 1 or 0, found }
end

-- Claims rows (L5, L6). ARGV: now, the end of the lease, then for each origin: its name, the limit of rows.
-- Returns the fence, the rows (origin, broadcast, recipient, attempt), and each broadcast's times and content.
function operations.claim()
  even_when_full()
  local now, leased_until = ARGV[1], ARGV[2]
  call('HINCRBY', META, 'fence', 1)
  -- As text: Lua's numbers are doubles.
  local fence = call('HGET', META, 'fence')
  local rows, contents, known = {}, {}, {}
  -- The most cancelled broadcasts at one origin that a claim ends.
  local CANCELLED_AT_ONCE = 32

  -- Leases rows of one queue.
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
      -- Of the broadcast with the oldest row, take the rows that are older than those of any other.
      local first = call('ZRANGE', waiting_key(origin), 0, 1, 'WITHSCORES')
      if not first[1] or tonumber(first[2]) > tonumber(now) then break end
      local bound = now
      if first[4] and tonumber(first[4]) < tonumber(now) then bound = first[4] end
      local id = string.sub(first[1], TURN_LEN + 1)
      local b = broadcast(id)
      if b.is_cancelled then
        -- Its cancellation has not reached this origin yet.
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
end

-- Finishes, postpones or releases claimed rows atomically (L7, L8).
-- ARGV: now, then for each row: broadcast, recipient, fence, and the settlement: the name of an outcome, '+' and the time
-- of the next attempt, or '-' and the time to repeat the same attempt. Returns a text with '1' for each valid token and
-- '0' for others.
function operations.settle()
  even_when_full()
  local now = ARGV[1]

  -- Read the states of all rows, by broadcast.
  local recipients_of = {}
  for i = 2, #ARGV, 4 do
    local list = recipients_of[ARGV[i]]
    if not list then
      list = {}
      recipients_of[ARGV[i]] = list
    end
    list[#list + 1] = ARGV[i + 1]
  end
  local states_of = {}
  for id, recipients in pairs(recipients_of) do
    local members, states = {}, {}
    for i, recipient in ipairs(recipients) do members[i] = id .. recipient end
    local raw = read_many('HMGET', states_key(id), recipients)
    local leased = read_many('ZMSCORE', LEASED, members)
    for i, recipient in ipairs(recipients) do
      if raw[i] and not states[recipient] then
        local row = state(raw[i])
        -- The lease has ended: the token stays valid until another claim.
        row.has_lapsed = not leased[i]
        local waits = row.has_lapsed and call('ZSCORE', queue_key(row.origin, id), recipient)
        if not row.has_lapsed or waits then states[recipient] = row end
      end
    end
    states_of[id] = states
  end

  local answers = {}
  local probes = {}
  local unleased, ended, back = {}, {}, {}
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
      put(unleased, id, id .. recipient)
      if row.has_lapsed then
        call('ZREM', queue_key(row.origin, id), recipient)
        touch(row.origin, id)
      end
      local kind, at = string.match(what, '^([+-])(.*)$')
      if kind and not b.is_cancelled then
        local attempts = row.attempts
        if kind == '-' then attempts = int(math.max(attempts - 1, 0)) end
        is_due = is_due or tonumber(at) <= tonumber(now)
        call('ZADD', queue_key(row.origin, id), at, recipient)
        touch(row.origin, id)
        put(back, id, recipient, raw_state('0', attempts, row.origin))
        row.fence = '0'
      else
        finish(b, kind and CANCELLED or what, 1)
        put(ended, id, recipient)
        states_of[id][recipient] = nil
      end
    end
  end
  for id, members in pairs(unleased) do call_many('ZREM', LEASED, members) end
  for id, recipients in pairs(ended) do call_many('HDEL', states_key(id), recipients) end
  for id, states in pairs(back) do call_many('HSET', states_key(id), states) end
  for _, probe in pairs(probes) do end_probe(probe[1], probe[2], now) end
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
  -- The most origins read in one call.
  local LOOKS = 200
  if lapse(now, 200) or wake(now, LOOKS) then return { 1 } end
  local best
  local looks = 0
  repeat
    if looks == LOOKS then return { 1 } end
    looks = looks + 1
    local origin = call('ZRANGE', READY, 0, 0)[1]
    if origin then best = look_at_ready(origin, now) end
  until best or not origin
  while not best do
    if looks == LOOKS then return { 1 } end
    looks = looks + 1
    local origin, at = unpack(call('ZRANGE', WAKES, 0, 0, 'WITHSCORES'))
    if not origin then break end
    local first = head(waiting_key(origin))
    local from = first and claimable_from(origin, first)
    if from and tonumber(from) == tonumber(at) then best = from else index_origin(origin) end
  end
  local moments = { 0 }
  if best then moments[#moments + 1] = best end
  local lease_ends = head(LEASED)
  if lease_ends then moments[#moments + 1] = lease_ends end
  for _, set in ipairs({ NEW, RUN, OPEN }) do
    local later = call('ZRANGEBYSCORE', set, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if later[2] then moments[#moments + 1] = later[2] end
  end
  return moments
end

-- Returns statistics. ARGV: now. Returns the numbers of rows and leased rows, and the first time of waiting and of leased
-- rows.
function operations.stats()
  return {
    tonumber(call('HGET', META, 'depth') or '0'),
    call('ZCOUNT', LEASED, '(' .. ARGV[1], '+inf'),
    head(HEADS) or '', head(LEASED) or '',
  }
end
