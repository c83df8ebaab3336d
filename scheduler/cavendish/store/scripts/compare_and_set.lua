-- compare_and_set: replace a shared state, if nobody replaced it since it was read.
-- KEYS    1 the shared state
-- ARGV    1 the version that was read ('0' for none)  2 the new value  3 seconds until it expires
-- RETURNS 1 replaced | 0 another process was faster: read it and try again
if (redis.call('HGET', KEYS[1], 'version') or '0') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full
redis.call('HSET', KEYS[1], 'version', ARGV[1] + 1, 'value', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
