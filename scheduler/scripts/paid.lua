-- paid: a receiver took the announcement; the record may be forgotten when nothing more is owed for it.
-- KEYS    1 owed  2 leases of debts  3 counts, then per debt: delivery, task, result
-- ARGV    1 now  2 token  3 retention, then per debt: debt, what the receiver answered
-- RETURNS how many were still ours
local ours = 0
for i = 4, #ARGV, 2 do
  local debt, key = ARGV[i], 4 + (i - 4) / 2 * 3
  local delivery, task = KEYS[key], KEYS[key + 1]
  if redis.call('HGET', KEYS[2], debt) == ARGV[2] then
    redis.call('HSET', delivery, 'state', 'paid', 'paid_at', ARGV[1], 'outcome', ARGV[i + 1])
    redis.call('HINCRBY', delivery, 'tries', 1)
    redis.call('EXPIRE', delivery, ARGV[3])
    if redis.call('HINCRBY', task, 'open', -1) <= 0 then
      -- a dead letter of the same task wants its record for longer
      local kept_for = math.max(tonumber(ARGV[3]), tonumber(redis.call('HGET', task, 'kept_for') or 0))
      for k = key + 1, key + 2 do redis.call('EXPIRE', KEYS[k], kept_for) end
    end
    redis.call('HINCRBY', KEYS[3], 'paid', 1)
    redis.call('ZREM', KEYS[1], debt)
    redis.call('HDEL', KEYS[2], debt)
    ours = ours + 1
  end
end
return ours
