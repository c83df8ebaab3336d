-- notify: make an operator alert pending for one endpoint, once, as if a tracked task had ended.
-- KEYS    1 inbox  2 ended  3 task  4 result
-- ARGV    1 now  2 id  3 subscription  4 url ('' for a registered endpoint)  5 the alert, as JSON
-- RETURNS 1 pending | 0 the id was used before
local now, id, subscription = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
redis.call('DEL', KEYS[4]) -- takes no memory: see Connection.write_when_full
redis.call('SET', KEYS[4], ARGV[5])
redis.call('HSET', KEYS[3], 'state', 'succeeded', 'submitted_at', now, 'deadline_at', now,
  'settled_at', now, 'webhooks', subscription)
if ARGV[4] ~= '' then redis.call('HSET', KEYS[3], 'to:' .. subscription, ARGV[4]) end
redis.call('ZADD', KEYS[1], now, subscription .. ':' .. id)
redis.call('ZADD', KEYS[2], now, id)
return 1
