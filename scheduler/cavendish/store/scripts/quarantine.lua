-- quarantine: take an unreadable record out of the round, keep it and say why, so that the rest goes on.
-- KEYS    1 deadlines  2 leases  3 quarantined, then the due set of every producer (the record cannot say which)
-- ARGV    id, reason, id, reason, ...
-- RETURNS how many
redis.call('HDEL', KEYS[2], '') -- see Connection.write_when_full: takes no memory, so that what follows may
for i = 1, #ARGV, 2 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
  for k = 4, #KEYS do redis.call('ZREM', KEYS[k], ARGV[i]) end
  redis.call('ZREM', KEYS[1], ARGV[i])
  redis.call('HDEL', KEYS[2], ARGV[i])
end
return #ARGV / 2
