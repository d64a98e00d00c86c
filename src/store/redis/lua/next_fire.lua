-- When the first schedule is due (D8); nothing where there is none.
return call('ZRANGE', FIRES, 0, 0, 'WITHSCORES')[2]
