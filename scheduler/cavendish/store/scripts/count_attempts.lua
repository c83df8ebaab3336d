-- count_attempts: count the attempts at an endpoint that were taken, and those that failed.
-- KEYS    1 attempts
-- ARGV    1 the period  2 the last one that is not kept any more  3 seconds to keep
--         4 taken  5 failed
-- RETURNS nothing
local key, period, gone, new = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), false
redis.call('HDEL', key, '') -- takes no memory: see Connection.write_when_full
for field, number in pairs({[period] = ARGV[4], [-period] = ARGV[5]}) do
  if number ~= '0' then
    new = redis.call('HINCRBY', key, field, number) == tonumber(number) or new
  end
end
if new then -- once in a period: drop what is too old
  local known = redis.call('HGETALL', key)
  for f = 1, #known, 2 do
    if math.abs(known[f]) <= gone then redis.call('HDEL', key, known[f]) end
  end
  redis.call('EXPIRE', key, ARGV[3])
end
