-- How full the ledger is. ARGV: now. Answers rows, leased rows, and the first moments of what waits and what is leased.
return {
  tonumber(call('HGET', META, 'depth') or '0'),
  call('ZCOUNT', LEASED, '(' .. ARGV[1], '+inf'),
  head(HEADS) or '', head(LEASED) or '',
}
