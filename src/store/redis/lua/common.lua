-- What all scripts begin with. Each script has the operations of one subject, and answers what the one does that its first
-- argument names. The others are the operation's, from ARGV[1] on.
--
-- KEYS[1] is the namespace, `{prefix}`. Every key is made of it, so that all of them have its hash tag and live on
-- one node of a cluster. Moments are milliseconds and come as arguments: no script asks for the time. As scores they
-- are doubles, exact for the next 280,000 years; where one is compared for equality it is compared as text.

local operations = {}

local P = KEYS[1]
local call = redis.call
local META = P .. ':meta'

-- The most values that one command is given: Lua's stack is small.
local GROUP = 500

-- `command key values...` in groups; the sum of the answers.
local function call_many(command, key, values)
  local sum = 0
  for first = 1, #values, GROUP do
    local last = math.min(first + GROUP - 1, #values)
    local answer = call(command, key, unpack(values, first, last))
    if type(answer) == 'number' then sum = sum + answer end
  end
  return sum
end

-- The answers to `command key values...`, one for each value.
local function read_many(command, key, values)
  local answers = {}
  for first = 1, #values, GROUP do
    local last = math.min(first + GROUP - 1, #values)
    local some = call(command, key, unpack(values, first, last))
    for i = 1, last - first + 1 do answers[first + i - 1] = some[i] end
  end
  return answers
end

-- A whole number as text: `tostring` would write large ones with an exponent.
local function int(number)
  return string.format('%.0f', number)
end

-- A server that is out of memory refuses a script before its first write, and not later. What takes work off begins
-- with a write of nothing, so that it goes on when nothing more can be put in.
local function even_when_full()
  call('DEL', P .. ':nothing')
end

-- Tells whoever waits for something to do. A user without the right to publish does without.
local function hint()
  redis.pcall('PUBLISH', P .. ':hints', '')
end
