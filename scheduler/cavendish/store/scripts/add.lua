-- add: begin to track ids, each once; a second submit changes nothing but adds its webhooks.
-- WITH    references
-- KEYS    1 due  2 deadlines  3 inbox  4 counts  5 producers  6 dead  7 quarantined  8 ended
--         9 common  10 common-open  11 common-until, then per id: task, result, its deliveries
-- ARGV    1 now  2 first poll at  3 deadline at  4 restart (0|1)  5 producer  6 new fields, as a
--         JSON array  7 common part of the metadata or ''  8 its text  9 of the URLs or ''
--         10 its text  11 number of webhooks, then per webhook: subscription, url ('' if it is in
--         the common part, and for a registered endpoint), then the ids
-- RETURNS per id, flat: 'new' | 'known', state
local now, restart, producer, webhooks = ARGV[1], ARGV[4] == '1', ARGV[5], tonumber(ARGV[11])
local first_id, given, answer = 12 + 2 * webhooks, cjson.decode(ARGV[6]), {}
redis.call('HINCRBY', KEYS[4], 'submitted', 0) -- takes memory: where it is full nothing is written
local function count(list) return select(2, string.gsub(list or '', '%S+', '')) end
local common, open, untils = KEYS[9], KEYS[10], KEYS[11]
for i = first_id, #ARGV do
  local id, key = ARGV[i], 12 + (i - first_id) * (2 + webhooks)
  local task, result = KEYS[key], KEYS[key + 1]
  local unreadable = redis.call('HDEL', KEYS[7], id) == 1
  if unreadable then delete(task, result, open, untils, now) end
  local state, old = unpack(redis.call('HMGET', task, 'state', 'webhooks'))
  local over = state and state ~= 'pending'
    and count(redis.call('HGET', task, 'closed')) >= count(old)
  for subscription in string.gmatch(restart and old or '', '%S+') do
    if redis.call('ZSCORE', KEYS[6], subscription .. ':' .. id) then over = false end
  end
  local outcome = 'known'
  if not state or (restart and over) then
    local restarts = state and tonumber(redis.call('HGET', task, 'restarts') or 0) + 1 or 0
    delete(task, result, open, untils, now)
    redis.call('HSET', task, 'state', 'pending', 'submitted_at', now, 'deadline_at', ARGV[3],
      'restarts', restarts, unpack(given))
    refer(task, common, open, ARGV[7], ARGV[8])
    redis.call('SADD', KEYS[5], producer)
    redis.call('ZADD', KEYS[1], ARGV[2], id)
    redis.call('ZADD', KEYS[2], ARGV[3], id)
    redis.call('HINCRBY', KEYS[4], 'submitted', 1)
    outcome, state = 'new', 'pending'
  end
  local subscribed = redis.call('HGET', task, 'webhooks') or ''
  for w = 1, webhooks do
    local subscription, url = ARGV[10 + 2 * w], ARGV[11 + 2 * w]
    if not string.find(' ' .. subscribed .. ' ', ' ' .. subscription .. ' ', 1, true) then
      redis.call('DEL', KEYS[key + 1 + w])
      redis.call('ZREM', KEYS[6], subscription .. ':' .. id) -- of a record that is forgotten
      subscribed = subscribed == '' and subscription or subscribed .. ' ' .. subscription
      redis.call('HSET', task, 'webhooks', subscribed)
      if url ~= '' then redis.call('HSET', task, 'to:' .. subscription, url) end
      if state ~= 'pending' then persist(task, open) end
      refer(task, common, open, ARGV[9], ARGV[10])
      if state ~= 'pending' then
        redis.call('ZADD', KEYS[3], now, subscription .. ':' .. id)
        redis.call('ZADD', KEYS[8], 'NX', now, id)
        redis.call('PERSIST', result)
      end
    end
  end
  answer[#answer + 1] = outcome
  answer[#answer + 1] = state
end
return answer
