-- sort: move fresh debts from the inbox into the queues of their endpoints. One that was queued meanwhile keeps its place.
-- KEYS    1 owed  2 owing, then per debt: queue
-- ARGV    per debt: debt, endpoint
-- RETURNS how many were moved
local moved = 0
redis.call('ZREM', KEYS[1], '') -- see Connection.anyway: takes no memory, so that what follows may
for i = 1, #ARGV, 2 do
  local debt, queue = ARGV[i], KEYS[3 + (i - 1) / 2]
  local since = redis.call('ZSCORE', KEYS[1], debt)
  if since then
    redis.call('ZADD', queue, 'NX', since, debt)
    redis.call('ZADD', KEYS[2], 'LT', since, ARGV[i + 1])
    redis.call('ZREM', KEYS[1], debt)
    moved = moved + 1
  end
end
return moved
