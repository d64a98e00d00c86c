-- Writes the row that Rust made of the rows that it has read (S2 to S7, S16). ARGV: the endpoint key, the row that was read
-- there, the key of the row to replace, the row that was read there, the new row, the limits; nothing is ''.
-- Answers 'stored'; or 'again' where a row is not the one that was read; 'taken' where the id is another row's; 'full';
-- 'unproven' where there are too many such rows.
local key, standing, replaced_key, replaced, raw = unpack(ARGV, 1, 5)
local total, per_principal, unproven = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
if (call('HGET', ROWS, key) or '') ~= standing then return 'again' end
if replaced_key ~= '' and (call('HGET', ROWS, replaced_key) or '') ~= replaced then return 'again' end
local row = cmsgpack.unpack(raw)
local named = call('HGET', IDS, row[ID])
if named and named ~= key and named ~= replaced_key then return 'taken' end

-- Decided before the first change, so that a refusal leaves everything as it was.
local leaving = {}
local is_leaving = { [key] = true }
local function leave(other)
  if not is_leaving[other] then
    is_leaving[other] = true
    leaving[#leaving + 1] = other
  end
end
if replaced ~= '' then leave(replaced_key) end
if row[PRINCIPAL] ~= '' then
  local theirs = principal_key(row[PRINCIPAL])
  local others = call('ZCARD', theirs)
  for other in pairs(is_leaving) do
    if call('ZSCORE', theirs, other) then others = others - 1 end
  end
  local surplus = others + 1 - math.max(per_principal, 1)
  if surplus > 0 then
    -- Two more than that: the row itself and the one it replaces may be among the first.
    for _, other in ipairs(call('ZRANGE', theirs, 0, surplus + 1)) do
      if surplus > 0 and not is_leaving[other] then
        leave(other)
        surplus = surplus - 1
      end
    end
  end
end
if standing == '' and call('HLEN', ROWS) + 1 - #leaving > total then return 'full' end
if standing == '' and replaced == '' and is_unproven(row) then
  local others = tonumber(call('HGET', META, 'unproven') or 0)
  if others + 1 > unproven then return 'unproven' end
end
for _, other in ipairs(leaving) do delete_row(other) end
delete_row(key)
insert_row(key, row)
return 'stored'
