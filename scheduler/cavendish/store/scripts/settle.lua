-- settle: write the outcomes of one batch back; a result and its deliveries are one write, and a
-- terminal state is final.
-- WITH    references
-- KEYS    1 deadlines  2 leases  3 inbox  4 counts  5 events  6 producers  7 ended  8 common-open
--         9 common-until, then per id: due, task, result
-- ARGV    1 now  2 token  3 retention  4 events to keep  5 seconds to keep them at least, then
--         twelve per id: id, producer, state, due at, polls, absences, absent since, finished at,
--         reason, model, record, delay
-- RETURNS per id, flat: 'stale' | state, subscriptions that became pending (joined by spaces)
local now, answer, ended = ARGV[1], {}, false
redis.call('HDEL', KEYS[2], '') -- takes no memory: see Connection.write_when_full
for i = 6, #ARGV, 12 do
  local id, producer, state = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local key = 10 + (i - 6) / 12 * 3
  local due, task, result = KEYS[key], KEYS[key + 1], KEYS[key + 2]
  local token = string.match(redis.call('HGET', KEYS[2], id) or '', '^(%S+) ')
  local written, subscriptions = 'stale', ''
  if token == ARGV[2] and redis.call('HGET', task, 'state') == 'pending' then
    written = state
    redis.call('HSET', task, 'polls', ARGV[i + 4], 'polled_at', now, 'absences', ARGV[i + 5],
      'absent_since', ARGV[i + 6], 'model', ARGV[i + 9])
    if state == 'pending' then
      redis.call('ZADD', due, ARGV[i + 3], id)
    else
      redis.call('SET', result, ARGV[i + 10])
      subscriptions = redis.call('HGET', task, 'webhooks') or ''
      for subscription in string.gmatch(subscriptions, '%S+') do
        redis.call('ZADD', KEYS[3], now, subscription .. ':' .. id)
        redis.call('ZADD', KEYS[7], now, id)
      end
      redis.call('HSET', task, 'state', state, 'settled_at', now, 'finished_at', ARGV[i + 7],
        'reason', ARGV[i + 8])
      redis.call('HINCRBY', KEYS[4], state, 1)
      redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[4], '*', 'id', id, 'state', state, 'at', now,
        'delay', ARGV[i + 11])
      if not string.find(subscriptions, '%S') then
        expire(task, KEYS[8], KEYS[9], now, ARGV[3])
        redis.call('EXPIRE', result, ARGV[3])
      end
      redis.call('ZREM', due, id)
      redis.call('ZREM', KEYS[1], id)
      if redis.call('EXISTS', due) == 0 then redis.call('SREM', KEYS[6], producer) end
      ended = true
    end
    redis.call('HDEL', KEYS[2], id)
  end
  answer[#answer + 1] = written
  answer[#answer + 1] = subscriptions
end
-- No record without webhooks outlives the events: so the lane is known for as long as there is one.
if ended and redis.call('TTL', KEYS[5]) <= tonumber(ARGV[5]) then
  redis.call('EXPIRE', KEYS[5], ARGV[5])
end
return answer
