-- erase_places: leave the places of forgotten ids in the journal empty, so that no other place
-- changes; a minute with nothing else leaves the journal.
-- KEYS    1 minutes  2 ids of the minute
-- ARGV    1 the minute, then per id: its number in the list (0 is the first), id
-- RETURNS how many places were left empty
local erased = 0
for i = 2, #ARGV, 2 do
  if redis.call('LINDEX', KEYS[2], ARGV[i]) == ARGV[i + 1] then
    redis.call('LSET', KEYS[2], ARGV[i], '')
    erased = erased + 1
  end
end
if erased > 0 and #redis.call('LPOS', KEYS[2], '', 'COUNT', 0) == redis.call('LLEN', KEYS[2]) then
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return erased
