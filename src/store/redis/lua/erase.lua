-- Erasing a user's pending deliveries.

-- Returns the audiences of broadcasts, nil for those that are over. ARGV: their ids.
function operations.audiences()
  local answers = {}
  for i, id in ipairs(ARGV) do answers[i] = call('HGET', content_key(id), 'audience') end
  return answers
end

-- Erases a user's pending deliveries from some broadcasts (L17). ARGV: now, the number of subscriptions, for each
-- subscription its recipient and origin, then for each broadcast its id, and 1 if it is only for this user and has to be
-- cancelled. Returns the number of ended rows, and the cancelled broadcasts, whose other rows are still to be ended.
function operations.erase()
  even_when_full()
  local now, subscriptions = ARGV[1], tonumber(ARGV[2])
  local last = 2 + 2 * subscriptions
  local erased, cancelled = 0, {}

  local function erase(b, recipient, origin)
    local rows = call('ZREM', queue_key(origin, b.id), recipient)
    local postponed = call('ZREM', postponed_key(b.id), recipient)
    if postponed > 0 then index_postponed(b.id) end
    if rows + postponed + call('ZREM', LEASED, b.id .. recipient) == 0 then return end
    call('ZREM', OWNED, b.id .. recipient)
    local raw = call('HGET', states_key(b.id), recipient)
    local row = raw and state(raw)
    if row then end_probe(origin, row.fence, now) end
    if raw then
      call('HDEL', states_key(b.id), recipient)
    end
    finish(b, CANCELLED, 1)
    touch(origin, b.id)
    erased = erased + 1
  end

  for i = last + 1, #ARGV, 2 do
    local b = broadcast(ARGV[i])
    if b and not b.fields.ended_at then
      for at = 3, last, 2 do erase(b, ARGV[at], ARGV[at + 1]) end
      if ARGV[i + 1] == '1' and not b.is_cancelled then
        set(b, 'cancelled', '1')
        b.is_cancelled, b.is_held = true, false
        give_up_unwritten(b, CANCELLED)
        call('SADD', SWEEPS, b.id)
        cancelled[#cancelled + 1] = b.id
      end
    end
  end
  index_changed()
  save_changed(now)
  return { erased, cancelled }
end
