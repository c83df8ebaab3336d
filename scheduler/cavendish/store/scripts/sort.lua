-- sort: move fresh deliveries from the inbox into the queues of their endpoints. One that was queued meanwhile keeps its place.
-- KEYS    1 inbox  2 endpoint_index, then per delivery: queue
-- ARGV    per delivery: delivery, endpoint
-- RETURNS how many were moved
local moved = 0
redis.call('ZREM', KEYS[1], '') -- see Connection.write_when_full: takes no memory, so that what follows may
for i = 1, #ARGV, 2 do
  local delivery, queue = ARGV[i], KEYS[3 + (i - 1) / 2]
  local since = redis.call('ZSCORE', KEYS[1], delivery)
  if since then
    redis.call('ZADD', queue, 'NX', since, delivery)
    redis.call('ZADD', KEYS[2], 'LT', since, ARGV[i + 1])
    redis.call('ZREM', KEYS[1], delivery)
    moved = moved + 1
  end
end
return moved
