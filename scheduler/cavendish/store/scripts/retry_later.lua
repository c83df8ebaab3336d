-- retry_later: end the leases of deliveries that were attempted; each is attempted again at a time.
-- KEYS    1 endpoint index  2 delivery leases, then per delivery: delivery, queue, retries
-- ARGV    1 token, then per delivery: delivery, endpoint, next attempt at, attempts to count (0|1),
--         outcome, log
-- RETURNS how many still had this token
local done = 0
redis.call('HDEL', KEYS[2], '') -- takes no memory: see Connection.write_when_full
for i = 2, #ARGV, 6 do
  local name, endpoint, next_at, attempts = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local key = 3 + (i - 2) / 6 * 3
  local delivery = KEYS[key]
  if redis.call('HGET', KEYS[2], name) == ARGV[1] then
    if type(redis.pcall('HINCRBY', delivery, 'attempts', attempts)) == 'table' then -- unreadable
      redis.call('DEL', delivery)
      redis.call('HINCRBY', delivery, 'attempts', attempts)
    end
    redis.call('HSET', delivery, 'outcome', ARGV[i + 4], 'log', ARGV[i + 5])
    redis.call('ZADD', KEYS[key + 2], next_at, name)
    redis.call('ZADD', KEYS[1], 'LT', next_at, endpoint)
    redis.call('ZREM', KEYS[key + 1], name)
    redis.call('HDEL', KEYS[2], name)
    done = done + 1
  end
end
return done
