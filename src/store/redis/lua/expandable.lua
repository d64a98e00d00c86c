-- Broadcasts to expand, the least recently expanded first (L3).
-- ARGV: now, limit, and how many of `new` and of `run` are known to be past their deadline or not due.
-- Answers how many of each were looked at, whether that was all, and the broadcasts.
local now, limit = ARGV[1], tonumber(ARGV[2])
local AT_ONCE = 200
local new = call('ZRANGEBYSCORE', NEW, '-inf', now, 'WITHSCORES', 'LIMIT', ARGV[3], AT_ONCE)
local run = call('ZRANGE', RUN, ARGV[4], ARGV[4] + AT_ONCE - 1, 'WITHSCORES')
local found = {}
local n, r = 1, 1
while #found < limit do
  local next_new, next_run = tonumber(new[n + 1]), tonumber(run[r + 1])
  -- Where one of them was cut off, nobody knows whose turn it would be.
  if not next_new and #new == 2 * AT_ONCE then break end
  if not next_run and #run == 2 * AT_ONCE then break end
  if not next_new and not next_run then break end
  local id
  if not next_run or (next_new and next_new <= next_run) then
    id, n = new[n], n + 2
  else
    id, r = run[r], r + 2
  end
  local fields = call('HMGET', numbers_key(id), 'due_at', 'deadline', 'cursor')
  if tonumber(fields[1]) <= tonumber(now) and tonumber(fields[2]) > tonumber(now) then
    found[#found + 1] = { id, call('HGET', content_key(id), 'audience'), fields[3] }
  end
end
local is_all = n > #new and r > #run and #new < 2 * AT_ONCE and #run < 2 * AT_ONCE
return { (n - 1) / 2, (r - 1) / 2, is_all and 1 or 0, found }
