-- forget_minute: drop a minute of the journal of which no record is kept any more.
-- KEYS    1 minutes  2 ids of the minute
-- ARGV    1 the minute
-- RETURNS 1 if it was there
redis.call('DEL', KEYS[2])
return redis.call('ZREM', KEYS[1], ARGV[1])
