-- quarantine: poll unreadable records no more; keep them, each with the reason.
-- KEYS    1 leases  2 quarantined, then the due set of every producer: an unreadable
--         record does not tell its producer
-- ARGV    per record: id, reason
-- RETURNS how many
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  redis.call('HSET', KEYS[2], id, ARGV[i + 1])
  for k = 3, #KEYS do redis.call('ZREM', KEYS[k], id) end
  redis.call('HDEL', KEYS[1], id)
end
return #ARGV / 2
