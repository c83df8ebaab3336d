-- later: the debt stays owed and is tried again at the given time.
-- KEYS    1 owing  2 leases of debts, then per debt: delivery, queue, retries
-- ARGV    1 token, then per debt: debt, endpoint, next try at, tries charged (0|1), what happened, log
-- RETURNS how many were still ours
local ours = 0
redis.call('HDEL', KEYS[2], '') -- see Connection.anyway: takes no memory, so that what follows may
for i = 2, #ARGV, 6 do
  local debt, key = ARGV[i], 3 + (i - 2) / 6 * 3
  local delivery = KEYS[key]
  if redis.call('HGET', KEYS[2], debt) == ARGV[1] then
    if type(redis.pcall('HINCRBY', delivery, 'tries', ARGV[i + 3])) == 'table' then -- an error: what was tried is unreadable
      redis.call('DEL', delivery)
      redis.call('HINCRBY', delivery, 'tries', ARGV[i + 3])
    end
    redis.call('HSET', delivery, 'outcome', ARGV[i + 4], 'log', ARGV[i + 5])
    redis.call('ZADD', KEYS[key + 2], ARGV[i + 2], debt)
    redis.call('ZADD', KEYS[1], 'LT', ARGV[i + 2], ARGV[i + 1])
    redis.call('ZREM', KEYS[key + 1], debt)
    redis.call('HDEL', KEYS[2], debt)
    ours = ours + 1
  end
end
return ours
