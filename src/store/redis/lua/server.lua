-- What a server has to be like.

-- What the server says of itself, on the node of a cluster that has our keys; nothing to a user who may not ask.
function operations.inspect()
  local info = redis.pcall('INFO')
  return type(info) == 'string' and info
end

-- The version of what is stored here, which is ARGV[1] where nothing is.
-- Whoever is to make room has to be able to start; a replica refuses.
function operations.begin()
  even_when_full()
  call('SETNX', P .. ':format', ARGV[1])
  return call('GET', P .. ':format')
end

-- The clock of the server, for the one who compares it with his own. Seconds and microseconds.
function operations.time()
  return call('TIME')
end
