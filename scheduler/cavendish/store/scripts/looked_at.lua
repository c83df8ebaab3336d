-- looked_at: write the times of the next checks of lanes that were checked into a due index.
-- What was noted lately may not be written yet: such a lane is checked again soon, and again,
-- until its writer has finished or is surely dead. So no writer's lane is ever forgotten.
-- KEYS    1 groups  2 noted, then per entry: the lanes of its group
-- ARGV    1 now  2 seconds for which a writer may take  3 seconds until a check that comes soon,
--         then per entry: group, lane, time of its next check ('' if nothing is in it)
-- RETURNS the time of the first check of all lanes, or nil
redis.call('ZREM', KEYS[2], '') -- takes no memory: see Connection.write_when_full
for i = 4, #ARGV, 3 do
  local group, lane, next_at, lanes = ARGV[i], ARGV[i + 1], ARGV[i + 2], KEYS[3 + (i - 4) / 3]
  local noted_at = redis.call('ZSCORE', KEYS[2], group .. ' ' .. lane)
  local age = noted_at and ARGV[1] - noted_at
  if age and math.abs(age) < tonumber(ARGV[2]) then
    local soon = ARGV[1] + math.max(tonumber(ARGV[3]), age / 2)
    if next_at == '' or soon < tonumber(next_at) then next_at = string.format('%.6f', soon) end
  elseif age then
    redis.call('ZREM', KEYS[2], group .. ' ' .. lane)
  end
  if next_at == '' then
    redis.call('ZREM', lanes, lane)
  else
    redis.call('ZADD', lanes, next_at, lane)
  end
  local first_at = redis.call('ZRANGE', lanes, 0, 0, 'WITHSCORES')[2]
  if first_at then
    redis.call('ZADD', KEYS[1], first_at, group)
  else
    redis.call('ZREM', KEYS[1], group)
  end
end
return redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
