-- add: begin to track ids, each once; a second submit changes nothing but adds its webhooks.
-- KEYS    1 due  2 deadlines  3 inbox  4 counts  5 producers  6 dead  7 quarantined  8 ended, then per id: task, result,
--         one row per webhook
-- ARGV    1 now  2 first poll at  3 deadline at  4 restart (0|1)  5 metadata  6 model  7 producer
--         8 traceparent ('' for none)  9 number of webhooks, then per webhook: subscription, url ('' for a registered endpoint), then the ids
-- RETURNS per id, flat: 'new' | 'known', state
local now, due, deadline, restart = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local hooks, first_id = tonumber(ARGV[9]), 10 + 2 * tonumber(ARGV[9])
local answer = {}
redis.call('HINCRBY', KEYS[4], 'submitted', 0) -- takes memory: where there is none, all of it is refused here, before anything is written
local function words(list) return select(2, string.gsub(list or '', '%S+', '')) end
for i = first_id, #ARGV do
  local id, key = ARGV[i], 9 + (i - first_id) * (2 + hooks)
  local task, result = KEYS[key], KEYS[key + 1]
  if redis.call('HDEL', KEYS[7], id) == 1 then redis.call('DEL', task, result) end -- quarantined: unreadable, so begin anew
  local state = redis.call('HGET', task, 'state')
  local old = redis.call('HGET', task, 'webhooks')
  local quiet = state and state ~= 'pending' and words(redis.call('HGET', task, 'closed')) >= words(old)
  for subscription in string.gmatch(restart and old or '', '%S+') do
    if redis.call('ZSCORE', KEYS[6], subscription .. ':' .. id) then quiet = false end
  end
  local verb = 'known'
  if not state or (restart and quiet) then
    local round = state and tonumber(redis.call('HGET', task, 'round') or 0) + 1 or 0
    redis.call('DEL', task, result)
    redis.call('HSET', task, 'state', 'pending', 'submitted_at', now, 'deadline_at', deadline, 'round', round,
      'metadata', ARGV[5], 'model', ARGV[6], 'producer', ARGV[7])
    if ARGV[8] ~= '' then redis.call('HSET', task, 'trace', ARGV[8]) end
    redis.call('SADD', KEYS[5], ARGV[7])
    redis.call('ZADD', KEYS[1], due, id)
    redis.call('ZADD', KEYS[2], deadline, id)
    redis.call('HINCRBY', KEYS[4], 'submitted', 1)
    verb, state = 'new', 'pending'
  end
  local subscribed = redis.call('HGET', task, 'webhooks') or ''
  for h = 1, hooks do
    local subscription, url = ARGV[8 + 2 * h], ARGV[9 + 2 * h]
    if not string.find(' ' .. subscribed .. ' ', ' ' .. subscription .. ' ', 1, true) then
      redis.call('DEL', KEYS[key + 1 + h])
      redis.call('ZREM', KEYS[6], subscription .. ':' .. id) -- a dead letter of a record that is forgotten
      subscribed = subscribed == '' and subscription or subscribed .. ' ' .. subscription
      redis.call('HSET', task, 'webhooks', subscribed)
      if url ~= '' then redis.call('HSET', task, 'to:' .. subscription, url) end
      if state ~= 'pending' then
        redis.call('ZADD', KEYS[3], now, subscription .. ':' .. id)
        redis.call('ZADD', KEYS[8], 'NX', now, id)
        redis.call('PERSIST', task)
        redis.call('PERSIST', result)
      end
    end
  end
  answer[#answer + 1] = verb
  answer[#answer + 1] = state
end
return answer
