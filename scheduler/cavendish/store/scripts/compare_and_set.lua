-- compare_and_set: replace something learned, if nobody did meanwhile.
-- KEYS    1 what is learned
-- ARGV    1 the version that was read ('0' for none)  2 the new value  3 seconds until it is forgotten
-- RETURNS 1 replaced | 0 somebody was faster: read restart
if (redis.call('HGET', KEYS[1], 'version') or '0') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], '') -- see Connection.write_when_full: takes no memory, so that what follows may
redis.call('HSET', KEYS[1], 'version', ARGV[1] + 1, 'value', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
