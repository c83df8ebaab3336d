-- release: end the leases of ids without a poll; they are due when they were, or not before a time.
-- KEYS    1 leases, then per id: due
-- ARGV    1 token  2 not before ('' for the old due time), then the ids
-- RETURNS how many still had this token
local released = 0
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full
for i = 3, #ARGV do
  local id, due = ARGV[i], KEYS[i - 1]
  local token, due_at = string.match(redis.call('HGET', KEYS[1], id) or '', '^(%S+) (%S+)$')
  if token == ARGV[1] then
    redis.call('ZADD', due, 'XX', ARGV[2] ~= '' and ARGV[2] or due_at, id)
    redis.call('HDEL', KEYS[1], id)
    released = released + 1
  end
end
return released
