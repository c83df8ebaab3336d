-- sort: move new deliveries from the inbox into the queues of their endpoints.
-- A delivery that is in its queue already keeps its place there.
-- KEYS    1 inbox  2 endpoint index, then per delivery: queue
-- ARGV    per delivery: delivery, endpoint
-- RETURNS how many were moved
local moved = 0
redis.call('ZREM', KEYS[1], '') -- takes no memory: see Connection.write_when_full
for i = 1, #ARGV, 2 do
  local delivery, endpoint, queue = ARGV[i], ARGV[i + 1], KEYS[3 + (i - 1) / 2]
  local since = redis.call('ZSCORE', KEYS[1], delivery)
  if since then
    redis.call('ZADD', queue, 'NX', since, delivery)
    redis.call('ZADD', KEYS[2], 'LT', since, endpoint)
    redis.call('ZREM', KEYS[1], delivery)
    moved = moved + 1
  end
end
return moved
