-- claim: lease chosen ids, each if its due time is still the one that was seen.
-- A leased id keeps its place in `due`, at the end of the lease: a lease that ends is a due id.
-- KEYS    1 leases, then per id: due
-- ARGV    1 lease ends at  2 token, then per id: id, the due time that was seen
-- RETURNS the ids that were leased
local claimed = {}
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full
for i = 3, #ARGV, 2 do
  local id, due = ARGV[i], KEYS[2 + (i - 3) / 2]
  local due_at = redis.call('ZSCORE', due, id)
  if due_at and tonumber(due_at) == tonumber(ARGV[i + 1]) then
    redis.call('HSET', KEYS[1], id, ARGV[2] .. ' ' .. due_at)
    redis.call('ZADD', due, 'XX', ARGV[1], id)
    claimed[#claimed + 1] = id
  end
end
return claimed
