-- write_when_full: run one small command that must be done even where memory is full, or tracked
-- tasks would never end.
-- KEYS    1 the key that it touches  2 a key in the same slot that never exists
-- ARGV    the command, then its words behind the key
-- RETURNS what the command returns
redis.call('DEL', KEYS[2]) -- takes no memory, so Redis lets the script write on
return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))
