-- reconcile: owe what should be pending and lies in no queue, whatever the cause; and mend the index of the queues.
-- Whoever held a delivery that was missing holds it no longer, else it could be put back twice.
-- KEYS    1 inbox  2 endpoint_index  3 leases of deliveries, then per delivery: task, queue, retries
-- ARGV    1 now, then per delivery: delivery, endpoint
-- RETURNS the deliveries that were missing
local missing = {}
redis.call('HDEL', KEYS[3], '') -- see Connection.write_when_full: takes no memory, so that what follows may
for i = 2, #ARGV, 2 do
  local delivery, key = ARGV[i], 4 + (i - 2) / 2 * 3
  local task, subscription = KEYS[key], string.match(ARGV[i], '^[^:]+')
  local function holds(field)
    return string.find(' ' .. (redis.call('HGET', task, field) or '') .. ' ', ' ' .. subscription .. ' ', 1, true)
  end
  if holds('webhooks') and not holds('closed') and redis.call('HGET', task, 'state') ~= 'pending' then
    local at = redis.call('ZSCORE', KEYS[key + 1], delivery) or redis.call('ZSCORE', KEYS[key + 2], delivery)
    if at then
      redis.call('ZADD', KEYS[2], 'LT', at, ARGV[i + 1])
    elseif not redis.call('ZSCORE', KEYS[1], delivery) then
      redis.call('ZADD', KEYS[1], ARGV[1], delivery)
      redis.call('HDEL', KEYS[3], delivery)
      missing[#missing + 1] = delivery
    end
  end
end
return missing
