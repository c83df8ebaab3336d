-- revive: bring dead letters back among the owed, with all their tries.
-- KEYS    1 owed  2 dead, then per debt: delivery, task, result
-- ARGV    1 now, then the debts
-- RETURNS per debt: 1 revived | 0 not among the dead, or what it announced is forgotten
local answer = {}
for i = 2, #ARGV do
  local debt, key = ARGV[i], 3 + (i - 2) * 3
  local delivery, task, result = KEYS[key], KEYS[key + 1], KEYS[key + 2]
  local alive = redis.call('ZSCORE', KEYS[2], debt) and redis.call('EXISTS', delivery, task) == 2
  if alive then
    redis.call('ZADD', KEYS[1], ARGV[1], debt)
    redis.call('HSET', delivery, 'state', 'owed', 'tries', 0)
    redis.call('HINCRBY', task, 'open', 1)
    for k = key, key + 2 do redis.call('PERSIST', KEYS[k]) end
    redis.call('ZREM', KEYS[2], debt)
  end
  answer[#answer + 1] = alive and 1 or 0
end
return answer
