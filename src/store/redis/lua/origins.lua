-- Pauses and tallies of origins.
--
--   tallies  hash  origin -> accepted=NUMBER gone=NUMBER at=TIME

local TALLIES = P .. ':tallies'

-- Writes the pause of an origin if it is unchanged (L11). ARGV: the origin, the old and the new pause, '' for none.
-- Returns whether it was written. Runs on a full server: pauses are small and needed there.
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

-- Adds to recent outcome counts (L15), as `Tally::plus` does. ARGV: now, `Tally::WINDOW`, then for each origin: its name,
-- the numbers of accepted and gone. Returns both sums of each. Runs on a full server: tallies are small and needed there.
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
        -- A damaged one starts anew.
        if a then tally.accepted, tally.gone = tonumber(a), tonumber(g) end
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

-- Deletes origins without rows (L13). ARGV for each origin: its name, its pause and its tally as read before. Changed
-- ones stay. With more than 1,000 leased or postponed rows, or 100 paused broadcasts, all stay until the next call.
function operations.prune_origins()
  local MOST, MOST_ASIDE = 1000, 100
  local leased = call('ZRANGE', LEASED, 0, MOST)
  if #leased > MOST then return 0 end
  local has_rows = {}
  local function note(id, recipient)
    local raw = call('HGET', states_key(id), recipient)
    local row = raw and state(raw)
    if row then has_rows[row.origin] = true end
  end
  for _, member in ipairs(leased) do
    note(string.sub(member, 1, ID_LEN), string.sub(member, ID_LEN + 1))
  end
  local left = MOST
  for _, id in ipairs(call('ZRANGE', LATER, 0, MOST)) do
    local postponed = call('ZRANGE', postponed_key(id), 0, left)
    left = left - #postponed
    if left < 0 then return 0 end
    for _, recipient in ipairs(postponed) do note(id, recipient) end
  end
  if call('SCARD', ASIDES) > MOST_ASIDE then return 0 end
  local origins = {}
  for i = 1, #ARGV, 3 do origins[#origins + 1] = ARGV[i] end
  for _, id in ipairs(call('SMEMBERS', ASIDES)) do
    for i, is_member in ipairs(read_many('SMISMEMBER', aside_key(id), origins)) do
      if is_member == 1 then has_rows[origins[i]] = true end
    end
  end
  for i = 1, #ARGV, 3 do
    local origin = ARGV[i]
    if not has_rows[origin] and call('EXISTS', waiting_key(origin)) == 0
      and (call('HGET', PAUSES, origin) or '') == ARGV[i + 1]
      and (call('HGET', TALLIES, origin) or '') == ARGV[i + 2] then
      call('HDEL', PAUSES, origin)
      call('HDEL', TALLIES, origin)
      call('ZREM', SERVED, origin)
      call('HDEL', TURNS, origin)
    end
  end
  return 1
end
