-- overdue: take the ids whose deadline is long past and that no look could settle, whatever they wait for.
-- They keep their place among the due: if this process dies, they are simply looked at.
-- KEYS    1 deadlines  2 leases
-- ARGV    1 deadline before  2 token  3 at most
-- RETURNS the ids
redis.call('HDEL', KEYS[2], '') -- see Connection.write_when_full: takes no memory, so that what follows may
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, id in ipairs(ids) do
  redis.call('HSET', KEYS[2], id, ARGV[2] .. ' ' .. ARGV[1])
end
return ids
