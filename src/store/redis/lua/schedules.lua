-- The schedules' keys, and what their scripts share.
--
--   d:OWNER  hash  name -> NEXT MOMENT\nTIME\nand what only Rust reads; an owner is 's' + an id, or 'a': the application
--   fires    zset  OWNER + name, by their next moment

local FIRES = P .. ':fires'

local function owner_key(owner) return P .. ':d:' .. owner end

-- The next moment, the time, and the rest.
local function parts(raw)
  return string.match(raw, '^([^\n]*)\n([^\n]*)\n(.*)$')
end

local function write_schedule(owner, name, next_moment, time, rest)
  call('HSET', owner_key(owner), name, next_moment .. '\n' .. time .. '\n' .. rest)
  call('ZADD', FIRES, next_moment, owner .. name)
end

local function remove_schedule(owner, name)
  call('ZREM', FIRES, owner .. name)
  return call('HDEL', owner_key(owner), name)
end

-- Inserts or replaces a schedule (D1). ARGV: owner, name, next moment, time, rest.
function operations.put_schedule()
  local owner, name, next_moment, time, rest = unpack(ARGV)
  local stored = call('HGET', owner_key(owner), name)
  if stored then
    local stored_moment, stored_time = parts(stored)
    -- What is due stays due.
    if stored_time == time then next_moment = stored_moment end
  end
  write_schedule(owner, name, next_moment, time, rest)
  hint()
  return 1
end

-- Removes schedules of one owner (D3). ARGV: owner, the name of one or nothing for all. Answers how many.
function operations.remove_schedules()
  local owner, name = ARGV[1], ARGV[2]
  if name then return remove_schedule(owner, name) end
  local removed = 0
  for _, each in ipairs(call('HKEYS', owner_key(owner))) do
    removed = removed + remove_schedule(owner, each)
  end
  return removed
end

-- Gives schedules to another owner, where that has none of the name (D4). ARGV: from, to.
-- As many as before, or fewer.
function operations.move_schedules()
  even_when_full()
  local from, to = ARGV[1], ARGV[2]
  local flat = call('HGETALL', owner_key(from))
  for i = 1, #flat, 2 do
    local name = flat[i]
    if call('HEXISTS', owner_key(to), name) == 0 then
      write_schedule(to, name, parts(flat[i + 1]))
    end
    remove_schedule(from, name)
  end
  return 1
end

-- Schedules that are due, the longest due first (D5). ARGV: now, the first of them, how many.
-- Answers by schedule: owner, name, value.
function operations.due_schedules()
  local answers = {}
  for i, member in ipairs(call('ZRANGEBYSCORE', FIRES, '-inf', ARGV[1], 'LIMIT', ARGV[2], ARGV[3])) do
    local length = string.sub(member, 1, 1) == 'a' and 1 or 17
    local owner, name = string.sub(member, 1, length), string.sub(member, length + 1)
    answers[i] = { owner, name, call('HGET', owner_key(owner), name) }
  end
  return answers
end

-- Fires schedules (D6). ARGV by firing: owner, name, the expected moment, the next one, and '1' with the 15 arguments
-- of the broadcast to open, or '0'. Answers a text of '1' for each that was fired and '0' for others.
function operations.fire()
  local answers = {}
  local i = 1
  while ARGV[i] do
    local owner, name, expected, next_moment, opens = unpack(ARGV, i, i + 4)
    local stored = call('HGET', owner_key(owner), name)
    local moment, time, rest
    if stored then moment, time, rest = parts(stored) end
    local is_expected = moment == expected
    if is_expected then
      write_schedule(owner, name, next_moment, time, rest)
      if opens == '1' then open_broadcast(i + 5) end
    end
    answers[#answers + 1] = is_expected and '1' or '0'
    i = i + 5 + (opens == '1' and BROADCAST_ARGS or 0)
  end
  hint()
  return table.concat(answers)
end

-- When the first schedule is due (D8); nothing where there is none.
function operations.next_fire()
  return call('ZRANGE', FIRES, 0, 0, 'WITHSCORES')[2]
end

-- Notes the latest moment at which due work was looked at (D7). ARGV: the moment.
function operations.record_run()
  even_when_full()
  local last = call('HGET', META, 'last_run')
  if not last or tonumber(last) < tonumber(ARGV[1]) then call('HSET', META, 'last_run', ARGV[1]) end
  return 1
end
