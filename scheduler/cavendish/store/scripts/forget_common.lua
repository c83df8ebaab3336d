-- forget_common: delete common parts that no record refers to any more.
-- KEYS    1 common  2 common-open  3 common-until
-- ARGV    1 records that expired before this time are gone  2 at most
-- RETURNS how many were looked at
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full
local parts = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, part in ipairs(parts) do
  if not redis.call('HGET', KEYS[2], part) then redis.call('HDEL', KEYS[1], part) end
  redis.call('ZREM', KEYS[3], part) -- a part in use comes back when a record gets its expiry
end
return #parts
