-- claim_delivery: take debts that are due, re-scored in place to the end of the lease.
-- KEYS    1 owed  2 leases of debts
-- ARGV    1 now  2 lease ends at  3 token  4 at most, then the debts wished for (none: whatever is due)
-- RETURNS the debts taken
local wished = {}
if #ARGV > 4 then
  for i = 5, #ARGV do
    local due = redis.call('ZSCORE', KEYS[1], ARGV[i])
    if due and tonumber(due) <= tonumber(ARGV[1]) then wished[#wished + 1] = ARGV[i] end
  end
else
  wished = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[4])
end
for _, debt in ipairs(wished) do
  redis.call('HSET', KEYS[2], debt, ARGV[3])
  redis.call('ZADD', KEYS[1], 'XX', ARGV[2], debt)
end
return wished
