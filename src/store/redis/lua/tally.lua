-- Adds to what origins said of late (L15), as `Tally::plus` does. ARGV: now, `Tally::WINDOW`, then by origin: its name,
-- how many were accepted, how many gone. Answers both sums of each; nothing where what is stored is damaged.
-- A few octets for each origin, without which work goes on badly.
even_when_full()
local now, window = ARGV[1], tonumber(ARGV[2])
local TALLIES = P .. ':tallies'
local tallies, sums = {}, {}
for i = 3, #ARGV, 3 do
  local origin, accepted, gone = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local tally = tallies[origin]
  if not tally then
    tally = { accepted = 0, gone = 0 }
    local raw = call('HGET', TALLIES, origin)
    if raw then
      local a, g = string.match(raw, '^(%d+)|(%d+)|')
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
    call('HSET', TALLIES, origin, int(tally.accepted) .. '|' .. int(tally.gone) .. '|' .. now)
  end
end
return sums
