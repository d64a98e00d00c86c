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
