-- reopen: owe again what was closed, with all its tries: dead letters (to revive them), or what was paid (to replay it).
-- KEYS    1 owing  2 dead, then per debt: delivery, task, result, retries
-- ARGV    1 'dead' | 'paid', then per debt: debt, endpoint, next try at
-- RETURNS per debt: 1 owed again | 0 not closed in this way, or what it announced is forgotten
local answer = {}
for i = 2, #ARGV, 3 do
  local debt, key = ARGV[i], 3 + (i - 2) / 3 * 4
  local delivery, task = KEYS[key], KEYS[key + 1]
  local subscription, still, found = string.match(debt, '^[^:]+'), '', false
  local closed = redis.pcall('HGET', task, 'closed') -- an error where the record is unreadable
  for word in string.gmatch(type(closed) == 'string' and closed or '', '%S+') do
    if word == subscription then found = true else still = still .. ' ' .. word end
  end
  if found and ARGV[1] == (redis.call('ZSCORE', KEYS[2], debt) and 'dead' or 'paid') then
    redis.call('ZADD', KEYS[key + 3], ARGV[i + 2], debt)
    redis.call('ZADD', KEYS[1], 'LT', ARGV[i + 2], ARGV[i + 1])
    if type(redis.pcall('HSET', delivery, 'state', 'owed', 'tries', 0)) == 'table' then redis.call('DEL', delivery) end
    redis.call('HSET', task, 'closed', still)
    for k = key, key + 2 do redis.call('PERSIST', KEYS[k]) end
    redis.call('ZREM', KEYS[2], debt)
    answer[#answer + 1] = 1
  else
    answer[#answer + 1] = 0
  end
end
return answer
