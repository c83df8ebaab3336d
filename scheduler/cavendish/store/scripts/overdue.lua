-- overdue: lease the ids whose deadline passed some time ago, whatever they wait for.
-- They keep their place in `due`: if this process dies, they are polled as usual.
-- KEYS    1 deadlines  2 leases
-- ARGV    1 deadline before  2 token  3 at most
-- RETURNS the ids
redis.call('HDEL', KEYS[2], '') -- takes no memory: see Connection.write_when_full
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, id in ipairs(ids) do
  redis.call('HSET', KEYS[2], id, ARGV[2] .. ' ' .. ARGV[1])
end
return ids
