-- compare_and_set: replace a shared state, if nobody replaced it since it was read.
-- KEYS    1 the shared state
-- ARGV    1 the version that was read ('0' for none)  2 the new version  3 the new value
--         4 seconds until it expires
-- RETURNS nil if it was replaced; where another process was faster, the version and the value that
--         are there
local row = redis.call('HMGET', KEYS[1], 'version', 'value')
if (row[1] or '0') ~= ARGV[1] then return {row[1] or '0', row[2] or ''} end
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'value', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
