-- claim: take chosen ids, each if it still stands where it was seen; re-scored in place to the end of the lease.
-- An expired lease is simply a due id, so a dead worker needs no reaper.
-- KEYS    1 leases, then per id: due
-- ARGV    1 lease ends at  2 token, then per id: id, the due time that was seen
-- RETURNS the ids taken
local taken = {}
redis.call('HDEL', KEYS[1], '') -- see Connection.write_when_full: takes no memory, so that what follows may
for i = 3, #ARGV, 2 do
  local id, due = ARGV[i], KEYS[2 + (i - 3) / 2]
  local score = redis.call('ZSCORE', due, id)
  if score and tonumber(score) == tonumber(ARGV[i + 1]) then
    redis.call('HSET', KEYS[1], id, ARGV[2] .. ' ' .. score)
    redis.call('ZADD', due, 'XX', ARGV[1], id)
    taken[#taken + 1] = id
  end
end
return taken
