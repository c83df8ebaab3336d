-- note_due: write the times of the next checks of lanes into a due index, before the lanes.
-- A check may come too early, and then finds nothing; an earlier time in the index stays.
-- KEYS    1 groups  2 noted  3 a key that never exists, then per entry: the lanes of its group
-- ARGV    1 now, then per entry: group, lane, time of its next check
-- RETURNS how many
redis.call('DEL', KEYS[3]) -- takes no memory: see Connection.write_when_full
for i = 2, #ARGV, 3 do
  redis.call('ZADD', KEYS[4 + (i - 2) / 3], 'LT', ARGV[i + 2], ARGV[i + 1])
  redis.call('ZADD', KEYS[1], 'LT', ARGV[i + 2], ARGV[i])
  redis.call('ZADD', KEYS[2], ARGV[1], ARGV[i] .. ' ' .. ARGV[i + 1])
end
return (#ARGV - 1) / 3
