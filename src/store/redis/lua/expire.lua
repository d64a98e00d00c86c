-- Ends rows of broadcasts that are past their deadline (L12). ARGV: now, at most how many rows, how many of the
-- broadcasts to leave out, which have nothing but leased rows. Answers how many rows ended, how many broadcasts to
-- leave out next, and whether there may be more.
even_when_full()
local now, limit, skipped = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local AT_ONCE = 50
local late = call('ZRANGEBYSCORE', OPEN, '-inf', now, 'LIMIT', skipped, AT_ONCE)
local total, looked_at = 0, 0
local is_cut = #late == AT_ONCE
for _, id in ipairs(late) do
  local b = broadcast(id)
  give_up_unwritten(b, EXPIRED)
  local outcome = b.is_cancelled and CANCELLED or EXPIRED
  -- At each of them something waits, so that rows are a limit for origins, too.
  local left = limit - looked_at
  local origins = call('SRANDMEMBER', origins_key(id), left)
  looked_at = looked_at + #origins
  for _, origin in ipairs(origins) do
    if total < limit then
      local rows = call('ZREMRANGEBYRANK', queue_key(origin, id), 0, limit - total - 1)
      total = total + rows
      if rows > 0 then finish(b, outcome, rows) end
      touch(origin, id)
    end
  end
  if total >= limit or #origins == left then
    is_cut = true
    break
  end
  -- What is over leaves the list; what has leased rows is passed.
  if b.rows > 0 then skipped = skipped + 1 end
end
index_changed()
save_changed(now)
return { total, skipped, is_cut and 1 or 0 }
