-- Accepts a broadcast (L1, L2).
local answered = open_broadcast(1)
if answered == 'new' then hint() end
return answered
