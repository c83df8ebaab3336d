-- lane_summary: what a lane polls like now; writes nothing.
-- KEYS    1 deadlines  2 leases  3 dead  4 quarantined  5 counts  6 inbox  7 endpoint_index  8 producers  9 service health  10 events
-- ARGV    1 most deliveries of the inbox that are named  2 oldest place of the ends told  3 most ends told
-- RETURNS pending, in flight, dead, quarantined, counts (flat), size of the inbox, deliveries in it, endpoints endpoint_index, producers,
--         service health, the newest ends (flat: place, at, delay)
local ends = {}
for _, row in ipairs(redis.call('XREVRANGE', KEYS[10], '+', ARGV[2], 'COUNT', ARGV[3]) or {}) do
  local said = {}
  for i = 1, #row[2], 2 do said[row[2][i]] = row[2][i + 1] end
  ends[#ends + 1] = row[1]
  ends[#ends + 1] = said.at or ''
  ends[#ends + 1] = said.delay or ''
end
return {
  redis.call('ZCARD', KEYS[1]),
  redis.call('HLEN', KEYS[2]),
  redis.call('ZCARD', KEYS[3]),
  redis.call('HLEN', KEYS[4]),
  redis.call('HGETALL', KEYS[5]),
  redis.call('ZCARD', KEYS[6]),
  redis.call('ZRANGE', KEYS[6], 0, ARGV[1] - 1),
  redis.call('ZRANGE', KEYS[7], 0, -1),
  redis.call('SMEMBERS', KEYS[8]),
  redis.call('HGET', KEYS[9], 'value') or '',
  ends,
}
