-- quarantine: a message that was in hand at several deaths of workers is kept quarantined; the oldest go where there are too many.
-- Its note and the count of its deaths go in the same step, so nobody is handed it restart.
-- KEYS    1 the ids in order  2 a key that never is  3 id -> entry  4 the notes of popped messages  5 message -> deaths
-- ARGV    1 id  2 entry, as JSON  3 the message as it was popped  4 most that are kept
-- RETURNS how many are kept now
redis.call('DEL', KEYS[2]) -- see Connection.write_when_full: takes no memory, so that what follows may
redis.call('ZREM', KEYS[4], ARGV[3])
redis.call('HDEL', KEYS[5], redis.sha1hex(ARGV[3]))
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
while redis.call('LLEN', KEYS[1]) > tonumber(ARGV[4]) do
  redis.call('HDEL', KEYS[3], redis.call('LPOP', KEYS[1]))
end
return redis.call('LLEN', KEYS[1])
