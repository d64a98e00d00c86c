-- Cancels a broadcast (L9). ARGV: now, broadcast. Answers whether there is more to end, and its numbers; nothing where
-- there is none. From the first call on nobody claims of it, and whoever looks for work goes on with the rest if the one
-- who has cancelled it does not.
even_when_full()
local now, id = ARGV[1], ARGV[2]
local b = broadcast(id)
if not b then return nil end
if not b.is_cancelled and not b.fields.ended_at then
  set(b, 'cancelled', '1')
  b.is_cancelled = true
  give_up_unwritten(b, CANCELLED)
  call('SADD', SWEEPS, id)
end
local has_more = call('SISMEMBER', SWEEPS, id) == 1 and sweep(b)
-- What is over may be forgotten when it is saved.
local answered = answer(id)
index_changed()
save_changed(now)
return { has_more and 1 or 0, answered }
