-- set_aside: take an unreadable record out of the round, keep it and say why, so that the rest goes on.
-- KEYS    1 due  2 deadlines  3 leases  4 aside
-- ARGV    id, reason, id, reason, ...
-- RETURNS how many
for i = 1, #ARGV, 2 do
  redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
  redis.call('ZREM', KEYS[1], ARGV[i])
  redis.call('ZREM', KEYS[2], ARGV[i])
  redis.call('HDEL', KEYS[3], ARGV[i])
end
return #ARGV / 2
