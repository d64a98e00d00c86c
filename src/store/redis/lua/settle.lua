-- Ends, postpones or gives back claimed rows, all of them in one step (L7, L8).
-- ARGV: now, then by row: broadcast, recipient, fence, and what: the number of an outcome, '@' and the moment of the
-- next attempt, or 'R' for a row that is given back. Answers a text of '1' for each that was held and '0' for others.
even_when_full()
local now = ARGV[1]

-- The states of all rows, read by broadcast.
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
      -- Its lease has ended: it is the claimant's as long as it waits, and nobody else's.
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
local is_released = false

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
    local kind = string.sub(what, 1, 1)
    local is_put_back = kind == '@' or kind == 'R'
    if is_put_back and not b.is_cancelled then
      local at, attempts = now, row.attempts
      if kind == '@' then
        at = string.sub(what, 2)
      else
        attempts = int(math.max(attempts - 1, 0))
        is_released = true
      end
      call('ZADD', queue_key(row.origin, id), at, recipient)
      touch(row.origin, id)
      put(back, id, recipient, raw_state('0', attempts, row.origin))
      row.fence = '0'
    else
      finish(b, is_put_back and CANCELLED or tonumber(what), 1)
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
if is_released then hint() end
return table.concat(answers)
