-- bury: lay debts into the dead letters with their reason; what they announce is kept as long as they lie there.
-- KEYS    1 owed  2 leases of debts  3 dead  4 counts, then per debt: delivery, task, result
-- ARGV    1 now  2 token  3 kept for, then per debt: debt, reason
-- RETURNS how many were still ours
local ours = 0
for i = 4, #ARGV, 2 do
  local debt, key = ARGV[i], 5 + (i - 4) / 2 * 3
  if redis.call('HGET', KEYS[2], debt) == ARGV[2] then
    redis.call('ZADD', KEYS[3], ARGV[1], debt)
    redis.call('HSET', KEYS[key], 'state', 'dead', 'outcome', ARGV[i + 1])
    redis.call('HINCRBY', KEYS[key], 'tries', 1)
    redis.call('HSET', KEYS[key + 1], 'kept_for', ARGV[3])
    redis.call('EXPIRE', KEYS[key], ARGV[3])
    if redis.call('HINCRBY', KEYS[key + 1], 'open', -1) <= 0 then
      for k = key + 1, key + 2 do redis.call('EXPIRE', KEYS[k], ARGV[3]) end
    end
    redis.call('HINCRBY', KEYS[4], 'buried', 1)
    redis.call('ZREM', KEYS[1], debt)
    redis.call('HDEL', KEYS[2], debt)
    ours = ours + 1
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ARGV[1] - ARGV[3]) -- their records are forgotten by then
return ours
