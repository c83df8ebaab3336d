-- quarantine_message: keep a message that was in hand at several deaths of a worker, and drop the
-- oldest ones if there are too many.
-- Its note and the count of its deaths are removed in the same step, so no worker gets it again.
-- KEYS    1 the ids in their order  2 a key that never exists  3 id -> entry
--         4 notes: messages by when they were popped  5 SHA-1 of a message -> deaths
-- ARGV    1 id  2 entry, as JSON  3 the message as it was popped  4 how many are kept
-- RETURNS how many are kept now
redis.call('DEL', KEYS[2]) -- takes no memory: see Connection.write_when_full
redis.call('ZREM', KEYS[4], ARGV[3])
redis.call('HDEL', KEYS[5], redis.sha1hex(ARGV[3]))
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
while redis.call('LLEN', KEYS[1]) > tonumber(ARGV[4]) do
  redis.call('HDEL', KEYS[3], redis.call('LPOP', KEYS[1]))
end
return redis.call('LLEN', KEYS[1])
