-- Gives back rows whose lease has ended. ARGV: now. Answers whether there may be more.
even_when_full()
return lapse(ARGV[1], 200) and 1 or 0
