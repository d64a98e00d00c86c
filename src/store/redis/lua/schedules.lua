-- The schedules' keys, and functions that their scripts share.
--
--   d:OWNER  hash  name -> NEXT FIRE TIME\nDAILY TIME\n and fields that only Rust reads; an owner is 's' + an id, or 'a'
--                  for the application
--   fires    zset  OWNER + name, by their next fire time, or by a later time if their broadcasts could not be opened
--   days     zset  midnight in UTC and the number of live subscriptions then, with a space between, by that midnight

local FIRES = P .. ':fires'
local DAYS = P .. ':days'
-- How long a schedule makes way for others whose broadcast could not be opened, in milliseconds.
local PUT_OFF = 300000

local function owner_key(owner) return P .. ':d:' .. owner end

-- Returns the next fire time, the daily time and the rest.
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

-- Inserts or replaces a schedule (D1). ARGV: owner, name, next fire time, daily time, rest.
function operations.put_schedule()
  local owner, name, next_moment, time, rest = unpack(ARGV)
  local stored = call('HGET', owner_key(owner), name)
  if stored then
    local stored_moment, stored_time = parts(stored)
    -- With an unchanged daily time the next fire time stays.
    if stored_time == time then next_moment = stored_moment end
  end
  write_schedule(owner, name, next_moment, time, rest)
  hint()
  return 1
end

-- Removes schedules of one owner (D3). ARGV: owner, optionally a name. Returns the number of removed ones.
function operations.remove_schedules()
  local owner, name = ARGV[1], ARGV[2]
  if name then return remove_schedule(owner, name) end
  local removed = 0
  for _, each in ipairs(call('HKEYS', owner_key(owner))) do
    removed = removed + remove_schedule(owner, each)
  end
  return removed
end

-- Removes a schedule if its daily time and what only Rust reads are unchanged (D9). ARGV: those of `put_schedule`. Returns
-- whether it did.
function operations.remove_unchanged_schedule()
  local owner, name, _, time, rest = unpack(ARGV)
  local stored = call('HGET', owner_key(owner), name)
  if not stored then return 0 end
  local _, stored_time, stored_rest = parts(stored)
  if stored_time ~= time or stored_rest ~= rest then return 0 end
  return remove_schedule(owner, name)
end

-- Moves schedules to another owner that has none of the same name (D4). ARGV: from, to.
-- Runs on a full server: the number of schedules does not grow.
function operations.move_schedules()
  even_when_full()
  local from, to = ARGV[1], ARGV[2]
  local flat = call('HGETALL', owner_key(from))
  for i = 1, #flat, 2 do
    local name = flat[i]
    if call('HEXISTS', owner_key(to), name) == 0 then
      -- As it is: one that cannot be read keeps no other from being moved.
      local moment = call('ZSCORE', FIRES, from .. name) or tonumber((parts(flat[i + 1])))
      call('HSET', owner_key(to), name, flat[i + 1])
      if moment then call('ZADD', FIRES, int(tonumber(moment)), to .. name) end
    end
    remove_schedule(from, name)
  end
  return 1
end

-- Returns due schedules, the longest due first (D5). ARGV: now, the number to skip, the limit.
-- Returns for each schedule: owner, name, value.
function operations.due_schedules()
  local answers = {}
  for i, member in ipairs(call('ZRANGEBYSCORE', FIRES, '-inf', ARGV[1], 'LIMIT', ARGV[2], ARGV[3])) do
    local length = string.sub(member, 1, 1) == 'a' and 1 or 17
    local owner, name = string.sub(member, 1, length), string.sub(member, length + 1)
    answers[i] = { owner, name, call('HGET', owner_key(owner), name) }
  end
  return answers
end

-- Fires schedules (D6). ARGV for each firing: owner, name, the expected and the next fire time, and '1' with the
-- arguments of the broadcast to open, or '0'. Returns a text with '1' for each fired schedule and '0' for others. If a
-- broadcast cannot be opened, its schedule is unchanged and is looked at again later, and the call is an error after the others.
function operations.fire()
  local answers, failure = {}, nil
  local i = 1
  while ARGV[i] do
    local owner, name, expected, next_moment, opens = unpack(ARGV, i, i + 4)
    local stored = call('HGET', owner_key(owner), name)
    local moment, time, rest
    if stored then moment, time, rest = parts(stored) end
    local fires, why = moment == expected, nil
    if fires and opens == '1' then
      -- Before the schedule moves on: if it cannot be opened, by damage, the schedule is put off, and the others fire.
      fires, why = pcall(open_broadcast, i + 5)
      if not fires then
        -- It may have written something.
        if loaded[ARGV[i + 5]] then error(why, 0) end
        failure = failure or why
        -- Many of them, first in the order, would keep all others from being fired.
        call('ZADD', FIRES, 'XX', int(ARGV[i + 6] + PUT_OFF), owner .. name)
      end
    end
    if fires then
      write_schedule(owner, name, next_moment, time, rest)
      index_changed()
      save_changed()
    end
    answers[#answers + 1] = fires and '1' or '0'
    i = i + 5
    if opens == '1' then i = behind_broadcast(i) end
  end
  hint()
  -- After the others. Without an error the caller would find the same schedule due again at once.
  if failure then error(failure, 0) end
  return table.concat(answers)
end

-- Returns the first fire time (D8), nil if there is no schedule.
function operations.next_fire()
  return call('ZRANGE', FIRES, 0, 0, 'WITHSCORES')[2]
end

-- Records the time of the latest run (D7). ARGV: the time.
function operations.record_run()
  even_when_full()
  local last = call('HGET', META, 'last_run')
  if not last or tonumber(last) < tonumber(ARGV[1]) then call('HSET', META, 'last_run', ARGV[1]) end
  return 1
end

-- Keeps the numbers of days that have none (D11). ARGV: the most days to keep, and for each day its midnight and number.
-- Runs on a full server: there are never more than these days.
function operations.record_days()
  even_when_full()
  for i = 2, #ARGV, 2 do
    local day = ARGV[i]
    if call('ZCOUNT', DAYS, day, day) == 0 then call('ZADD', DAYS, day, day .. ' ' .. ARGV[i + 1]) end
  end
  call('ZREMRANGEBYRANK', DAYS, 0, -1 - ARGV[1])
  return 1
end
