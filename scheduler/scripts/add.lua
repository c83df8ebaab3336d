-- add: begin to track ids, each once; a second submit changes nothing but adds its webhooks.
-- KEYS    1 due  2 deadlines  3 owed  4 counts  5 producers  6 dead  7 aside, then per id: task, result, one delivery per webhook
-- ARGV    1 now  2 first look at  3 deadline at  4 again (0|1)  5 metadata  6 model  7 producer
--         8 number of webhooks, then per webhook: endpoint, url, then the ids
-- RETURNS per id, flat: 'new' | 'known', state
local now, due, deadline, again = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local hooks, first_id = tonumber(ARGV[8]), 9 + 2 * tonumber(ARGV[8])
local answer = {}
for i = first_id, #ARGV do
  local id, key = ARGV[i], 8 + (i - first_id) * (2 + hooks)
  local task, result = KEYS[key], KEYS[key + 1]
  if redis.call('HDEL', KEYS[7], id) == 1 then redis.call('DEL', task, result) end -- set aside: unreadable, so begin anew
  local state = redis.call('HGET', task, 'state')
  local quiet = state and state ~= 'pending' and tonumber(redis.call('HGET', task, 'open') or 0) == 0
  for endpoint in string.gmatch(again and redis.call('HGET', task, 'webhooks') or '', '%S+') do
    if redis.call('ZSCORE', KEYS[6], endpoint .. ':' .. id) then quiet = false end
  end
  local verb = 'known'
  if not state or (again and quiet) then
    local round = state and tonumber(redis.call('HGET', task, 'round') or 0) + 1 or 0
    redis.call('DEL', task, result)
    redis.call('HSET', task, 'state', 'pending', 'submitted_at', now, 'deadline_at', deadline, 'round', round,
      'metadata', ARGV[5], 'model', ARGV[6], 'producer', ARGV[7])
    redis.call('SADD', KEYS[5], ARGV[7])
    redis.call('ZADD', KEYS[1], due, id)
    redis.call('ZADD', KEYS[2], deadline, id)
    redis.call('HINCRBY', KEYS[4], 'submitted', 1)
    verb, state = 'new', 'pending'
  end
  local subscribed = redis.call('HGET', task, 'webhooks') or ''
  for h = 1, hooks do
    local endpoint, url = ARGV[7 + 2 * h], ARGV[8 + 2 * h]
    if not string.find(subscribed, endpoint, 1, true) then
      local delivery = KEYS[key + 1 + h]
      redis.call('DEL', delivery)
      redis.call('HSET', delivery, 'url', url, 'tries', 0, 'state', state == 'pending' and 'waiting' or 'owed')
      subscribed = subscribed == '' and endpoint or subscribed .. ' ' .. endpoint
      redis.call('HSET', task, 'webhooks', subscribed)
      if state ~= 'pending' then
        redis.call('ZADD', KEYS[3], now, endpoint .. ':' .. id)
        redis.call('HINCRBY', task, 'open', 1)
        redis.call('PERSIST', task)
        redis.call('PERSIST', result)
      end
    end
  end
  answer[#answer + 1] = verb
  answer[#answer + 1] = state
end
return answer
