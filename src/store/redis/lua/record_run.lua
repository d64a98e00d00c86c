-- Notes the latest moment at which due work was looked at (D7). ARGV: the moment.
even_when_full()
local last = call('HGET', META, 'last_run')
if not last or tonumber(last) < tonumber(ARGV[1]) then call('HSET', META, 'last_run', ARGV[1]) end
return 1
