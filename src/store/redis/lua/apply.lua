-- Makes changes, in order (S11, S12). ARGV: now, then by change: its kind, the endpoint key and two values.
-- Answers how many rows have changed.
even_when_full()
local now = ARGV[1]
local changed = 0
for i = 2, #ARGV, 4 do
  local kind, key, first, second = unpack(ARGV, i, i + 3)
  local row = kind ~= 'delete' and read_row(key)
  if kind == 'delete' then
    if delete_row(key) then changed = changed + 1 end
  elseif row then
    local function rewrite(change)
      index_row(key, row, -1)
      change()
      index_row(key, row, 1)
      write_row(key, row)
      changed = changed + 1
    end
    -- What was learned of a row before it was seen again is out of date.
    local is_known = tonumber(row[LAST_SEEN]) <= (tonumber(first) or 0)
    if kind == 'accepted' then
      count_unproven(row, -1)
      row[LAST_SUCCESS], row[STREAK], row[FAILING_SINCE] = now, '0', ''
      write_row(key, row)
      changed = changed + 1
    elseif kind == 'failed' then
      row[STREAK] = int(math.min(row[STREAK] + 1, 4294967295))
      if row[FAILING_SINCE] == '' then row[FAILING_SINCE] = now end
      write_row(key, row)
      changed = changed + 1
    elseif kind == 'vapid_key' then
      rewrite(function() row[VAPID_KEY] = first end)
    elseif kind == 'retire' and row[RETIRED_AT] == '' and is_known then
      rewrite(function() row[RETIRED_AT], row[REASON] = now, second end)
    elseif kind == 'stale' and row[STALE] == '0' and is_known then
      rewrite(function() row[STALE] = '1' end)
    end
  end
end
return changed
