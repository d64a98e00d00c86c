-- What the server says of itself, on the node of a cluster that has our keys; nothing to a user who may not ask.
local info = redis.pcall('INFO')
return type(info) == 'string' and info
