-- The version of what is stored here, which is ARGV[1] where nothing is.
-- A server that is full refuses a write, even of what is there: who is to make room has to be able to start.
local format = call('GET', P .. ':format')
if not format then
  format = ARGV[1]
  call('SET', P .. ':format', format)
end
return format
