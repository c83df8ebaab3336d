-- write_when_full: one small command that must be done even where memory is full, or what is tracked would never end.
-- KEYS    1 the key that it touches  2 a key in the same slot that never is
-- ARGV    the command, then its words behind the key
-- RETURNS what the command returns
redis.call('DEL', KEYS[2]) -- takes no memory, so that what follows may
return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))
