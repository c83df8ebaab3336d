-- forget_deadlines: delete deadlines of a lane in which nothing is pending any more.
-- KEYS    1 producers  2 deadlines, then the due set of each producer, the ids of each deadline
-- ARGV    1 the number of producers that are known, then the deadlines
-- RETURNS 1 they are gone | 0 something is pending, and nothing was deleted
local known = tonumber(ARGV[1])
if redis.call('SCARD', KEYS[1]) > known then return 0 end
for k = 3, 2 + known do
  if redis.call('EXISTS', KEYS[k]) == 1 then return 0 end
end
redis.call('DEL', unpack(KEYS, 3 + known))
redis.call('ZREM', KEYS[2], unpack(ARGV, 2))
return 1
