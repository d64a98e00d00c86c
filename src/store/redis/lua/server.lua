-- Checks of the server.

-- Returns INFO, of the node that holds the keys of a cluster; nil if the user lacks permission.
function operations.inspect()
  local info = redis.pcall('INFO')
  return type(info) == 'string' and info
end

-- Returns the version of the stored data. If there is none, ARGV[1] becomes it; without ARGV[1] the answer is nil.
-- Runs on a full server, so that a store can start and free memory. A replica refuses it.
function operations.begin()
  even_when_full()
  if ARGV[1] then
    call('SETNX', P .. ':format', ARGV[1])
  end
  return call('GET', P .. ':format')
end

-- Returns the server's clock for comparison: seconds and microseconds.
function operations.time()
  return call('TIME')
end
