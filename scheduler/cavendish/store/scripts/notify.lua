-- notify: owe a notice of our own to one endpoint, once, as if a tracked task had ended.
-- KEYS    1 inbox  2 ended  3 task  4 result
-- ARGV    1 now  2 id  3 subscription  4 url ('' for a registered endpoint)  5 what it says, as JSON
-- RETURNS 1 inbox | 0 known
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
redis.call('DEL', KEYS[4]) -- see Connection.write_when_full: takes no memory, so that what follows may
redis.call('SET', KEYS[4], ARGV[5])
redis.call('HSET', KEYS[3], 'state', 'succeeded', 'submitted_at', ARGV[1], 'deadline_at', ARGV[1], 'settled_at', ARGV[1],
  'webhooks', ARGV[3])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[3], 'to:' .. ARGV[3], ARGV[4]) end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[3] .. ':' .. ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[1], ARGV[2])
return 1
