-- The workers: their beats, and the rows of those that are dead (L19). These scripts read the clock, so that all beats are
-- by one.

-- The server's time in milliseconds.
local function server_time()
  local time = call('TIME')
  return int(tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
end

-- Enters a worker. Returns its number and the time.
function operations.enlist()
  even_when_full()
  local id, at = int(call('HINCRBY', META, 'worker', 1)), server_time()
  call('HSET', WORKERS, id, at)
  return { id, at }
end

-- Writes a beat. ARGV: the number of the worker. Returns the time, nil if it is marked as dead or not known.
function operations.beat()
  even_when_full()
  local known = call('HGET', WORKERS, ARGV[1])
  if not known or known == DEAD then return nil end
  local at = server_time()
  call('HSET', WORKERS, ARGV[1], at)
  return at
end

-- Makes rows of dead workers due. ARGV: now, the number of rows, the time before which a worker that is not marked must have
-- beaten last, and the workers. Marks them: a beat before this leaves them their rows, and one after it tells them that
-- these may be lost. Returns the number of rows.
function operations.rescue()
  even_when_full()
  local now, left, horizon = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
  local rescued = 0
  for i = 4, #ARGV do
    local worker = ARGV[i]
    local known = call('HGET', WORKERS, worker)
    local beat_at = known and known ~= DEAD and (tonumber(known) or 0)
    if known == DEAD or beat_at and horizon and beat_at < horizon then
      call('HSET', WORKERS, worker, DEAD)
      local members = left > 0 and call('ZRANGEBYSCORE', OWNED, worker, worker, 'LIMIT', 0, left) or {}
      for _, member in ipairs(members) do
        -- An earlier end stays.
        call('ZADD', LEASED, 'XX', 'LT', now, member)
        local raw = call('HGET', states_key(string.sub(member, 1, ID_LEN)), string.sub(member, ID_LEN + 1))
        local row = raw and state(raw)
        if row then end_probe(row.origin, row.fence, now) end
      end
      call_many('ZREM', OWNED, members)
      rescued = rescued + #members
      left = left - #members
      if left > 0 then call('HDEL', WORKERS, worker) end
    end
  end
  index_changed()
  return rescued
end

-- Returns whether any of these workers has leased rows. ARGV: the workers.
function operations.has_leased()
  for _, worker in ipairs(ARGV) do
    if call('ZCOUNT', OWNED, worker, worker) > 0 then return 1 end
  end
  return 0
end
