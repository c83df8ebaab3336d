-- reopen: owe restart what was closed, with all its attempts: dead letters (to revive them), or what was delivered (to replay it).
-- KEYS    1 endpoint_index  2 dead, then per delivery: row, task, result, retries
-- ARGV    1 'dead' | 'delivered', then per delivery: delivery, endpoint, next try at
-- RETURNS per delivery: 1 inbox restart | 0 not closed in this way, or what it announced is forgotten
local answer = {}
for i = 2, #ARGV, 3 do
  local delivery, key = ARGV[i], 3 + (i - 2) / 3 * 4
  local row, task = KEYS[key], KEYS[key + 1]
  local subscription, still, found = string.match(delivery, '^[^:]+'), '', false
  local closed = redis.pcall('HGET', task, 'closed') -- an error where the record is unreadable
  for word in string.gmatch(type(closed) == 'string' and closed or '', '%S+') do
    if word == subscription then found = true else still = still .. ' ' .. word end
  end
  if found and ARGV[1] == (redis.call('ZSCORE', KEYS[2], delivery) and 'dead' or 'delivered') then
    redis.call('ZADD', KEYS[key + 3], ARGV[i + 2], delivery)
    redis.call('ZADD', KEYS[1], 'LT', ARGV[i + 2], ARGV[i + 1])
    if type(redis.pcall('HSET', row, 'state', 'pending', 'attempts', 0)) == 'table' then redis.call('DEL', row) end
    redis.call('HSET', task, 'closed', still)
    for k = key, key + 2 do redis.call('PERSIST', KEYS[k]) end
    redis.call('ZREM', KEYS[2], delivery)
    answer[#answer + 1] = 1
  else
    answer[#answer + 1] = 0
  end
end
return answer
