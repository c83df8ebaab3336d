-- quarantine: poll unreadable records no more; keep them, each with the reason.
-- KEYS    1 deadlines  2 leases  3 quarantined, then the due set of every producer: an unreadable
--         record does not tell its producer
-- ARGV    per record: id, reason
-- RETURNS how many
redis.call('HDEL', KEYS[2], '') -- takes no memory: see Connection.write_when_full
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  redis.call('HSET', KEYS[3], id, ARGV[i + 1])
  for k = 4, #KEYS do redis.call('ZREM', KEYS[k], id) end
  redis.call('ZREM', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
end
return #ARGV / 2
