-- How many live rows a tag has (S10). ARGV: now, the tag.
return call('ZCARD', tag_key(ARGV[2])) - call('ZCOUNT', expiring_tag_key(ARGV[2]), '-inf', ARGV[1])
