-- The clock of the server, for the one who compares it with his own. Seconds and microseconds.
return call('TIME')
