-- The version of what is stored here, which is ARGV[1] where nothing is.
call('SETNX', P .. ':format', ARGV[1])
return call('GET', P .. ':format')
