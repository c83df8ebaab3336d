-- reowe: owe what should be owed and lies in no queue, whatever the cause; and mend the index of the queues.
-- Whoever held a debt that was missing holds it no longer, else it could be put back twice.
-- KEYS    1 owed  2 owing  3 leases of debts, then per debt: task, queue, retries
-- ARGV    1 now, then per debt: debt, endpoint
-- RETURNS the debts that were missing
local missing = {}
redis.call('HDEL', KEYS[3], '') -- see Connection.anyway: takes no memory, so that what follows may
for i = 2, #ARGV, 2 do
  local debt, key = ARGV[i], 4 + (i - 2) / 2 * 3
  local task, subscription = KEYS[key], string.match(ARGV[i], '^[^:]+')
  local function holds(field)
    return string.find(' ' .. (redis.call('HGET', task, field) or '') .. ' ', ' ' .. subscription .. ' ', 1, true)
  end
  if holds('webhooks') and not holds('closed') and redis.call('HGET', task, 'state') ~= 'pending' then
    local at = redis.call('ZSCORE', KEYS[key + 1], debt) or redis.call('ZSCORE', KEYS[key + 2], debt)
    if at then
      redis.call('ZADD', KEYS[2], 'LT', at, ARGV[i + 1])
    elseif not redis.call('ZSCORE', KEYS[1], debt) then
      redis.call('ZADD', KEYS[1], ARGV[1], debt)
      redis.call('HDEL', KEYS[3], debt)
      missing[#missing + 1] = debt
    end
  end
end
return missing
