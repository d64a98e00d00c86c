-- Ends rows of broadcasts that are past their deadline (L12). ARGV: now, at most how many rows, how many of the
-- broadcasts to leave out, which have nothing but leased rows. Answers how many rows ended, how many broadcasts to
-- leave out next, and whether there may be more.
even_when_full()
local now, limit, skipped = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local AT_ONCE = 50
local late = call('ZRANGEBYSCORE', OPEN, '-inf', now, 'LIMIT', skipped, AT_ONCE)
local total = 0
local looked_at = 0
for _, id in ipairs(late) do
  if total >= limit then break end
  looked_at = looked_at + 1
  local b = broadcast(id)
  give_up_unwritten(b, EXPIRED)
  local outcome = b.is_cancelled and CANCELLED or EXPIRED
  for _, origin in ipairs(call('SMEMBERS', origins_key(id))) do
    if total >= limit then break end
    local rows = call('ZREMRANGEBYRANK', queue_key(origin, id), 0, limit - total - 1)
    if rows > 0 then
      total = total + rows
      finish(b, outcome, rows)
      touch(origin, id)
    end
  end
  -- What is over leaves the list; what has more rows to end is first in the next call.
  if b.rows > 0 and total < limit then skipped = skipped + 1 end
end
index_changed()
save_changed(now)
local has_more = total >= limit or looked_at == AT_ONCE
return { total, skipped, has_more and 1 or 0 }
