-- reconcile: put open deliveries that lie nowhere back into the inbox, and mend the endpoint index
-- for the others.
-- A missing delivery loses its lease, or it could be put back twice.
-- KEYS    1 inbox  2 endpoint index  3 delivery leases, then per delivery: task, queue, retries
-- ARGV    1 now, then per delivery: delivery, endpoint
-- RETURNS the deliveries that were missing
local missing = {}
redis.call('HDEL', KEYS[3], '') -- takes no memory: see Connection.write_when_full
for i = 2, #ARGV, 2 do
  local delivery, endpoint, key = ARGV[i], ARGV[i + 1], 4 + (i - 2) / 2 * 3
  local task, subscription = KEYS[key], string.match(delivery, '^[^:]+')
  local function lists(field)
    local list = ' ' .. (redis.call('HGET', task, field) or '') .. ' '
    return string.find(list, ' ' .. subscription .. ' ', 1, true)
  end
  local ended = redis.call('HGET', task, 'state')
  if ended and lists('webhooks') and not lists('closed') then
    local due_at = redis.call('ZSCORE', KEYS[key + 1], delivery)
      or redis.call('ZSCORE', KEYS[key + 2], delivery)
    if due_at then
      redis.call('ZADD', KEYS[2], 'LT', due_at, endpoint)
    elseif not redis.call('ZSCORE', KEYS[1], delivery) then
      redis.call('ZADD', KEYS[1], ARGV[1], delivery)
      redis.call('HDEL', KEYS[3], delivery)
      missing[#missing + 1] = delivery
    end
  end
end
return missing
