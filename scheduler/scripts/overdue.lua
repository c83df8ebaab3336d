-- overdue: take the ids whose deadline is long past and that no look could settle, whatever they wait for.
-- KEYS    1 deadlines  2 due  3 leases
-- ARGV    1 deadline before  2 lease ends at  3 token  4 at most
-- RETURNS the ids
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[4])
for _, id in ipairs(ids) do
  redis.call('HSET', KEYS[3], id, ARGV[3] .. ' ' .. ARGV[1])
  redis.call('ZADD', KEYS[2], ARGV[2], id)
end
return ids
