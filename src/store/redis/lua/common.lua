-- The beginning of all scripts. A file has the operations of one subject, each of which is a script with what it needs of that file, and
-- of those before it. The first argument names it. The remaining ones are the operation's, from ARGV[1] on.
--
-- KEYS[1] is the namespace, `{prefix}`. Every key begins with it, so that all have the same hash tag and are on one node
-- of a cluster. Times are milliseconds and come as arguments: no script reads the clock but that of the workers. As scores they are doubles,
-- exact for the next 280,000 years. Equality is compared as text.

local operations = {}

local P = KEYS[1]
local call = redis.call
local META = P .. ':meta'

-- The most values of one command: Lua's stack is small.
local GROUP = 500

-- Runs `command key values...` in groups. Returns the sum of the replies.
local function call_many(command, key, values)
  local sum = 0
  for first = 1, #values, GROUP do
    local last = math.min(first + GROUP - 1, #values)
    local answer = call(command, key, unpack(values, first, last))
    if type(answer) == 'number' then sum = sum + answer end
  end
  return sum
end

-- Runs `command key values...` in groups. Returns the replies, one for each value.
local function read_many(command, key, values)
  local answers = {}
  for first = 1, #values, GROUP do
    local last = math.min(first + GROUP - 1, #values)
    local some = call(command, key, unpack(values, first, last))
    for i = 1, last - first + 1 do answers[first + i - 1] = some[i] end
  end
  return answers
end

-- Converts an integer to text: `tostring` writes large ones with an exponent.
local function int(number)
  return string.format('%.0f', number)
end

-- A server without memory refuses a script at its first write if the command may need memory, and not later. Operations
-- that free memory begin with a harmless deletion, so that they run on a full server.
local function even_when_full()
  call('DEL', P .. ':nothing')
end

-- Ends a script with an error on a full server, before its first write. Operations that add data, and remove some first,
-- begin with it.
local function not_when_full()
  call('ZADD', P .. ':nothing', 'XX', 0, '')
end

-- Notifies workers of new work. Ignores errors: the user may lack permission to publish.
local function hint()
  redis.pcall('PUBLISH', P .. ':hints', '')
end
