-- later: the debt stays owed and is tried again at the given time.
-- KEYS    1 owed  2 leases of debts, then per debt: delivery
-- ARGV    1 token, then per debt: debt, next try at, tries charged (0|1), what happened
-- RETURNS how many were still ours
local ours = 0
for i = 2, #ARGV, 4 do
  local debt, delivery = ARGV[i], KEYS[3 + (i - 2) / 4]
  if redis.call('HGET', KEYS[2], debt) == ARGV[1] then
    redis.call('HSET', delivery, 'outcome', ARGV[i + 3])
    redis.call('HINCRBY', delivery, 'tries', ARGV[i + 2])
    redis.call('ZADD', KEYS[1], ARGV[i + 1], debt)
    redis.call('HDEL', KEYS[2], debt)
    ours = ours + 1
  end
end
return ours
