-- Forgets origins where nothing waits (L13). ARGV by origin: its name, its pause and its tally as they were read.
-- One that has changed meanwhile stays.
local TALLIES = P .. ':tallies'
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
