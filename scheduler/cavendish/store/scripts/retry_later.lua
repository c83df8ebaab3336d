-- retry_later: the delivery stays pending and is tried restart at the given time.
-- KEYS    1 endpoint_index  2 leases of deliveries, then per delivery: row, queue, retries
-- ARGV    1 token, then per delivery: delivery, endpoint, next try at, attempts charged (0|1), what happened, log
-- RETURNS how many were still ours
local ours = 0
redis.call('HDEL', KEYS[2], '') -- see Connection.write_when_full: takes no memory, so that what follows may
for i = 2, #ARGV, 6 do
  local delivery, key = ARGV[i], 3 + (i - 2) / 6 * 3
  local row = KEYS[key]
  if redis.call('HGET', KEYS[2], delivery) == ARGV[1] then
    if type(redis.pcall('HINCRBY', row, 'attempts', ARGV[i + 3])) == 'table' then -- an error: what was tried is unreadable
      redis.call('DEL', row)
      redis.call('HINCRBY', row, 'attempts', ARGV[i + 3])
    end
    redis.call('HSET', row, 'outcome', ARGV[i + 4], 'log', ARGV[i + 5])
    redis.call('ZADD', KEYS[key + 2], ARGV[i + 2], delivery)
    redis.call('ZADD', KEYS[1], 'LT', ARGV[i + 2], ARGV[i + 1])
    redis.call('ZREM', KEYS[key + 1], delivery)
    redis.call('HDEL', KEYS[2], delivery)
    ours = ours + 1
  end
end
return ours
