-- Pauses and tallies of origins.
--
--   tallies  hash  origin -> accepted=NUMBER gone=NUMBER at=MOMENT

local TALLIES = P .. ':tallies'

-- Writes the pause of an origin, where it still is what it was (L11). ARGV: the origin, what it was, what it becomes;
-- nothing is ''. Answers whether it did.
-- A few octets for each origin, without which work goes on badly.
function operations.pause()
  even_when_full()
  local origin = ARGV[1]
  if (call('HGET', PAUSES, origin) or '') ~= ARGV[2] then return 0 end
  if ARGV[3] == '' then
    call('HDEL', PAUSES, origin)
  else
    call('HSET', PAUSES, origin, ARGV[3])
  end
  index_origin(origin)
  return 1
end

-- Adds to what origins said of late (L15), as `Tally::plus` does. ARGV: now, `Tally::WINDOW`, then by origin: its name,
-- how many were accepted, how many gone. Answers both sums of each; nothing where what is stored is damaged.
-- A few octets for each origin, without which work goes on badly.
function operations.tally()
  even_when_full()
  local now, window = ARGV[1], tonumber(ARGV[2])
  local tallies, sums = {}, {}
  for i = 3, #ARGV, 3 do
    local origin, accepted, gone = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
    local tally = tallies[origin]
    if not tally then
      tally = { accepted = 0, gone = 0 }
      local raw = call('HGET', TALLIES, origin)
      if raw then
        local a, g = string.match(raw, '^accepted=(%d+) gone=(%d+) ')
        if not a then return nil end
        tally.accepted, tally.gone = tonumber(a), tonumber(g)
      end
      tallies[origin] = tally
    end
    if accepted + gone > 0 then
      tally.is_changed = true
      tally.accepted, tally.gone = tally.accepted + accepted, tally.gone + gone
      while tally.accepted + tally.gone > window do
        tally.accepted, tally.gone = math.floor(tally.accepted / 2), math.floor(tally.gone / 2)
      end
    end
    sums[#sums + 1] = tally.accepted
    sums[#sums + 1] = tally.gone
  end
  for origin, tally in pairs(tallies) do
    if tally.is_changed then
      local text = 'accepted=' .. int(tally.accepted) .. ' gone=' .. int(tally.gone) .. ' at=' .. now
      call('HSET', TALLIES, origin, text)
    end
  end
  return sums
end

-- Forgets origins where nothing waits (L13). ARGV by origin: its name, its pause and its tally as they were read.
-- One that has changed meanwhile stays.
function operations.prune_origins()
  for i = 1, #ARGV, 3 do
    local origin = ARGV[i]
    if not call('ZSCORE', HEADS, origin)
      and (call('HGET', PAUSES, origin) or '') == ARGV[i + 1]
      and (call('HGET', TALLIES, origin) or '') == ARGV[i + 2] then
      call('HDEL', PAUSES, origin)
      call('HDEL', TALLIES, origin)
      call('ZREM', SERVED, origin)
    end
  end
  return 1
end
