-- Opening, expanding and ending broadcasts.

-- Opens a broadcast, or several (L1, L2). ARGV: their arguments. Returns the answer of each: as `open_broadcast`, or 'alone'
-- for one of several that failed and changed nothing.
function operations.open()
  local answers, has_new, alone, failure = {}, false, 0, nil
  local is_single = not ARGV[behind_broadcast(1)]
  local first = 1
  while ARGV[first] do
    local id, is_done, answered = ARGV[first], true, nil
    if is_single then
      answered = open_broadcast(first)
    else
      is_done, answered = pcall(open_broadcast, first)
    end
    if not is_done then
      -- It may have written something.
      if loaded[id] then error(answered, 0) end
      answered, alone, failure = 'alone', alone + 1, failure or answered
    end
    answers[#answers + 1] = answered
    has_new = has_new or answered == 'new'
    first = behind_broadcast(first)
  end
  -- What keeps all from being opened, such as a full server, is told at once.
  if alone == #answers then error(failure, 0) end
  index_changed()
  save_changed()
  if has_new then hint() end
  return answers
end

-- Returns broadcasts of two sets to expand, the least recently expanded first: the numbers of members read of each after
-- those to skip, whether that was all, and the broadcasts. One with a pace waits for its time, unless that is after
-- `longest`: then a wrong clock wrote it.
local function least_recently_expanded(new_set, run_set, now, longest, limit, new_skipped, run_skipped)
  local AT_ONCE = 200
  local new = call('ZRANGEBYSCORE', new_set, '-inf', now, 'WITHSCORES', 'LIMIT', new_skipped, AT_ONCE)
  local run = call('ZRANGE', run_set, run_skipped, run_skipped + AT_ONCE - 1, 'WITHSCORES')
  local found = {}
  local n, r = 1, 1
  while #found < limit do
    local next_new, next_run = tonumber(new[n + 1]), tonumber(run[r + 1])
    -- At the end of a truncated list the order is unknown.
    if not next_new and #new == 2 * AT_ONCE then break end
    if not next_run and #run == 2 * AT_ONCE then break end
    if not next_new and not next_run then break end
    local id, at
    if not next_run or (next_new and next_new <= next_run) then
      id, at, n = new[n], next_new, n + 2
    else
      id, at, r = run[r], next_run, r + 2
    end
    local fields = call('HMGET', numbers_key(id), 'due_at', 'deadline', 'cursor', 'pace', 'held')
    local waits = fields[5] == '1' or fields[4] and at > tonumber(now) and at <= tonumber(longest)
    local due_at, deadline = tonumber(fields[1] or ''), tonumber(fields[2] or '')
    if #id ~= ID_LEN then
      -- No broadcast has this name.
    elseif not due_at or not deadline then
      -- Rust parks what has no audience.
      found[#found + 1] = { id, '', '', '', '' }
    elseif due_at <= tonumber(now) and deadline > tonumber(now) and not waits then
      -- What is missing is not left out of the reply: none of its lists could be read then.
      local content, cursor = call('HMGET', content_key(id), 'audience', 'trace_parent'), fields[3]
      found[#found + 1] = { id, cursor and content[1] or '', cursor or '', fields[4] or '', content[2] or '' }
    end
  end
  local is_all = n > #new and r > #run and #new < 2 * AT_ONCE and #run < 2 * AT_ONCE
  return { (n - 1) / 2, (r - 1) / 2, is_all and 1 or 0, found }
end

-- Returns urgent broadcasts to expand, and others (L3). ARGV: now, the latest time that a right clock writes, then for each
-- kind: the limit, and the numbers of members of its two sets to skip, which are past their deadline or not due.
function operations.expandable()
  even_when_full()
  local now, longest, limit, new, run, other_limit, other_new, other_run = unpack(ARGV)
  return {
    least_recently_expanded(NEW_URGENT, RUN_URGENT, now, longest, tonumber(limit), new, run),
    least_recently_expanded(NEW, RUN, now, longest, tonumber(other_limit), other_new, other_run),
  }
end

-- Writes a page of recipients and moves the cursor if it is the expected one (L4).
-- ARGV: now, the longest time of a page, broadcast, expected cursor, then those of the page. Returns whether it was written,
-- nil if the counts are damaged.
function operations.enqueue()
  local now, longest, id, expected = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
  local b = broadcast(id)
  if b and b.is_damaged then return nil end
  if not b or b.is_held or b.fields.expanding ~= '1' or b.fields.cursor ~= expected
    or tonumber(b.fields.deadline) <= tonumber(now) then
    return 0
  end
  write_page(b, now, longest, 5, #ARGV)
  index_changed()
  save_changed(now)
  return 1
end

-- Cancels a broadcast (L9). ARGV: now, broadcast. Returns whether more rows have to end, and its counts; nil if it is
-- unknown. After the first call no row is claimed. Claims continue the cancellation if the caller does not.
function operations.cancel()
  even_when_full()
  local now, id = ARGV[1], ARGV[2]
  local b = broadcast(id)
  if not b then return nil end
  local has_more = false
  if not b.fields.ended_at then
    if not b.is_cancelled then
      set(b, 'cancelled', '1')
      b.is_cancelled, b.is_held = true, false
      give_up_unwritten(b, CANCELLED)
    end
    -- Of one that was cancelled before, too: a lease may have ended since.
    call('SADD', SWEEPS, id)
    has_more = sweep(b)
  end
  -- Read before saving, which may delete the broadcast.
  local answered = answer(id)
  index_changed()
  save_changed(now)
  return { has_more and 1 or 0, answered }
end

-- Pauses a broadcast, or lets it go on (L21). ARGV: now, broadcast, whether it is paused. Returns its counts, nil if it is
-- unknown. Claims bring the rest of its rows back.
function operations.hold()
  even_when_full()
  local now, id, held = ARGV[1], ARGV[2], ARGV[3]
  local b = broadcast(id)
  if not b then return nil end
  local is_open = not b.is_damaged and not b.is_cancelled and not b.fields.ended_at
  if is_open and (b.fields.held or '0') ~= held then
    set(b, 'held', held)
    b.is_held = held == '1'
    index_held(b)
    call('SADD', ASIDES, id)
    call(b.is_held and 'SREM' or 'SADD', RESUMES, id)
  end
  if call('SISMEMBER', RESUMES, id) == 1 then bring_back(b) end
  local answered = answer(id)
  index_changed()
  save_changed(now)
  if held == '0' then hint() end
  return answered
end

-- Ends rows of broadcasts past their deadline (L12). ARGV: now, the limit of rows, the number of broadcasts to skip,
-- which have only leased rows. Returns the number of ended rows, the number of broadcasts to skip next, and whether there
-- may be more.
function operations.expire()
  even_when_full()
  local now, limit, skipped = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
  local AT_ONCE = 50
  local late = call('ZRANGEBYSCORE', OPEN, '-inf', now, 'LIMIT', skipped, AT_ONCE)
  local total, looked_at = 0, 0
  local is_cut = #late == AT_ONCE
  for _, id in ipairs(late) do
    local b = broadcast_of_row(id)
    -- Rows that its canceller has left do not count.
    if b.is_cancelled and call('SISMEMBER', SWEEPS, id) == 1 and sweep(b) then
      is_cut = true
      break
    end
    give_up_unwritten(b, EXPIRED)
    local outcome = b.is_cancelled and CANCELLED or EXPIRED
    if total < limit then total = total + end_postponed(b, outcome, limit - total) end
    -- Each origin has a ready row, so the limit of rows is one for origins too.
    local left = limit - looked_at
    local origins = call('SRANDMEMBER', origins_key(id), left)
    looked_at = looked_at + #origins
    for _, origin in ipairs(origins) do
      if total < limit then
        local rows = call('ZREMRANGEBYRANK', queue_key(origin, id), 0, limit - total - 1)
        total = total + rows
        if rows > 0 then finish(b, outcome, rows) end
        touch(origin, id)
      end
    end
    if total >= limit or #origins == left then
      is_cut = true
      break
    end
    -- Finished broadcasts leave the list. Those with leased rows are skipped next time.
    if b.is_damaged then
      call('UNLINK', content_key(id), origins_key(id), states_key(id), aside_key(id))
      for _, set in ipairs({ ASIDES, RESUMES }) do call('SREM', set, id) end
      for _, set in ipairs({ OPEN, NEW, RUN, NEW_URGENT, RUN_URGENT, HELD }) do call('ZREM', set, id) end
      forget(id, b.fields.created_at, b.fields.idem)
    elseif b.rows > 0 then skipped = skipped + 1 end
  end
  index_changed()
  save_changed(now)
  return { total, skipped, is_cut and 1 or 0 }
end

-- Makes rows due whose moment is later than any that a correct clock writes (L12). ARGV: now, that moment, the number of
-- broadcasts with postponed rows to skip. Returns the number of them to skip next, 0 after the last one.
function operations.pull()
  even_when_full()
  local now, latest, skipped = ARGV[1], ARGV[2], tonumber(ARGV[3])
  local BROADCASTS, ROWS_AT_ONCE = 200, 500
  for _, member in ipairs(call('ZRANGEBYSCORE', LEASED, '(' .. latest, '+inf', 'LIMIT', 0, ROWS_AT_ONCE)) do
    call('ZADD', LEASED, now, member)
  end
  local left = ROWS_AT_ONCE
  local ids = call('ZRANGE', LATER, skipped, skipped + BROADCASTS - 1)
  for _, id in ipairs(ids) do
    local last = call('ZREVRANGE', postponed_key(id), 0, 0, 'WITHSCORES')[2]
    if left > 0 and last and tonumber(last) > tonumber(latest) then
      local rows = call('ZRANGEBYSCORE', postponed_key(id), '(' .. latest, '+inf', 'LIMIT', 0, left)
      left = left - #rows
      for _, recipient in ipairs(rows) do call('ZADD', postponed_key(id), now, recipient) end
      index_postponed(id)
    end
  end
  -- Those that were changed stand at the front now.
  if left <= 0 then return skipped end
  return #ids == BROADCASTS and skipped + #ids or 0
end

-- Returns the counts of open broadcasts, by deadline (L16); of damaged ones the id only. ARGV: the first and the last index,
-- from 0.
function operations.underway()
  local answers = {}
  for i, id in ipairs(call('ZRANGE', OPEN, ARGV[1], ARGV[2])) do
    local b = broadcast(id)
    answers[i] = b and not b.is_damaged and answer(id) or { id }
  end
  return answers
end

-- Returns the members of a set of broadcasts and their counts, the newest first (L24): of damaged ones the member only. ARGV:
-- the set, what stands behind the first, the last, the limit. Members of broadcasts that are gone are removed.
function operations.list()
  local set = P .. ':' .. ARGV[1]
  local answers = {}
  for i, member in ipairs(call('ZREVRANGEBYLEX', set, ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])) do
    local id = string.sub(member, AT_LEN + 1)
    local b = broadcast(id)
    answers[i] = { member, b and not b.is_damaged and answer(id) or false }
    if not b then call('ZREM', set, member) end
  end
  return answers
end

-- Deletes up to 200 broadcasts that ended before a time (L13). ARGV: the time. Returns their number.
function operations.prune()
  even_when_full()
  local ids = call('ZRANGEBYSCORE', ENDED, '-inf', '(' .. ARGV[1], 'LIMIT', 0, 200)
  for _, id in ipairs(ids) do
    forget(id, unpack(call('HMGET', numbers_key(id), 'created_at', 'idem')))
  end
  write_members()
  return #ids
end
