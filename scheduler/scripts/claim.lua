-- claim: take the ids most worth a look, re-scored in place to the end of the lease.
-- An expired lease is simply a due id, so a dead worker needs no reaper.
-- KEYS    1 due  2 leases
-- ARGV    1 now  2 lease ends at  3 token  4 at most
-- RETURNS the ids
local ranked = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[4])
local ids = {}
for i = 1, #ranked, 2 do
  local id, due = ranked[i], ranked[i + 1]
  redis.call('HSET', KEYS[2], id, ARGV[3] .. ' ' .. due)
  redis.call('ZADD', KEYS[1], 'XX', ARGV[2], id)
  ids[#ids + 1] = id
end
return ids
