-- The version of what is stored here, which is ARGV[1] where nothing is.
-- Whoever is to make room has to be able to start; a replica refuses.
even_when_full()
call('SETNX', P .. ':format', ARGV[1])
return call('GET', P .. ':format')
