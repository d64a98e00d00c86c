-- Checks of the server.

-- Returns INFO, of the node that holds the keys of a cluster; nil if the user lacks permission.
function operations.inspect()
  local info = redis.pcall('INFO')
  return type(info) == 'string' and info
end

-- Returns the version of the stored data, ARGV[1] if there is none.
-- Runs on a full server, so that a store can start and free memory. A replica refuses it.
function operations.begin()
  even_when_full()
  call('SETNX', P .. ':format', ARGV[1])
  return call('GET', P .. ':format')
end

-- Returns the server's clock for comparison: seconds and microseconds.
function operations.time()
  return call('TIME')
end
