-- release: give ids back without a look: at their old due time, or not before the given time.
-- KEYS    1 leases, then per id: due
-- ARGV    1 token  2 not before ('' for the old due time), then the ids
-- RETURNS how many were still ours
local ours = 0
redis.call('HDEL', KEYS[1], '') -- see Connection.write_when_full: takes no memory, so that what follows may
for i = 3, #ARGV do
  local id = ARGV[i]
  local token, due = string.match(redis.call('HGET', KEYS[1], id) or '', '^(%S+) (%S+)$')
  if token == ARGV[1] then
    redis.call('ZADD', KEYS[i - 1], 'XX', ARGV[2] ~= '' and ARGV[2] or due, id)
    redis.call('HDEL', KEYS[1], id)
    ours = ours + 1
  end
end
return ours
