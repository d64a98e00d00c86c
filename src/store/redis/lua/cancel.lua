-- Cancels a broadcast (L9). ARGV: now, broadcast. Answers its numbers; nothing where there is none.
-- What is in the queues is not leased: however many rows wait, they end with their queue.
even_when_full()
local now, id = ARGV[1], ARGV[2]
local b = broadcast(id)
if not b then return nil end
if not b.is_cancelled and not b.fields.ended_at then
  set(b, 'cancelled', '1')
  give_up_unwritten(b, CANCELLED)
  for _, origin in ipairs(call('SMEMBERS', origins_key(id))) do
    local queue = queue_key(origin, id)
    local waiting = call('ZCARD', queue)
    if waiting > 0 then
      call('UNLINK', queue)
      finish(b, CANCELLED, waiting)
      touch(origin, id)
    end
  end
end
-- What is over may be forgotten when it is saved.
local answered = answer(id)
index_changed()
save_changed(now)
return answered
