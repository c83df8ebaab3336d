-- reopen: make closed deliveries pending again, with all their attempts: dead letters (to revive
-- them), or delivered ones (to replay them).
-- WITH    references acts
-- KEYS    1 endpoint index  2 dead  3 common-open, then per delivery: delivery, task, result,
--         retries
-- ARGV    1 state: 'dead' | 'delivered'  2 what is noted of it, then per delivery: delivery,
--         endpoint, next attempt at
-- RETURNS per delivery: 1 pending again | 0 not in this state, or its record expired
local answer = {}
for i = 3, #ARGV, 3 do
  local name, endpoint, next_at, key = ARGV[i], ARGV[i + 1], ARGV[i + 2], 4 + (i - 3) / 3 * 4
  local delivery, task = KEYS[key], KEYS[key + 1]
  local subscription, others, found = string.match(name, '^[^:]+'), '', false
  local closed = redis.pcall('HGET', task, 'closed') -- an error where the record is unreadable
  for word in string.gmatch(type(closed) == 'string' and closed or '', '%S+') do
    if word == subscription then found = true else others = others .. ' ' .. word end
  end
  local state = redis.call('ZSCORE', KEYS[2], name) and 'dead' or 'delivered'
  local skipped = redis.pcall('HGET', task, 'skipped')
  for word in string.gmatch(type(skipped) == 'string' and skipped or '', '%S+') do
    if word == subscription then state = 'skipped' end
  end
  if found and ARGV[1] == state then
    redis.call('ZADD', KEYS[key + 3], next_at, name)
    redis.call('ZADD', KEYS[1], 'LT', next_at, endpoint)
    if type(redis.pcall('HSET', delivery, 'state', 'pending', 'attempts', 0)) == 'table' then
      redis.call('DEL', delivery) -- unreadable
    end
    redis.call('HSET', task, 'closed', others)
    note_act(task, ARGV[2])
    persist(task, KEYS[3])
    for k = key, key + 2, 2 do redis.call('PERSIST', KEYS[k]) end
    redis.call('ZREM', KEYS[2], name)
    answer[#answer + 1] = 1
  else
    answer[#answer + 1] = 0
  end
end
return answer
