-- claim: lease chosen ids, each if its due time is still the one that was seen.
-- A leased id keeps its place in `due`, at the end of the lease: a lease that ends is a due id.
-- KEYS    1 leases, then each due
-- ARGV    1 lease ends at  2 token, then per due: number of words, and these: ids, each with the
--         due time that was seen
-- RETURNS the ids that were leased
local claimed, leases, i = {}, {}, 3
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full
for k = 2, #KEYS do
  local ids, ends, first = {}, {}, i + 1
  i = first + ARGV[i]
  for w = first, i - 1, 2 do ids[#ids + 1] = ARGV[w] end
  for n, due_at in ipairs(redis.call('ZMSCORE', KEYS[k], unpack(ids))) do
    if due_at and tonumber(due_at) == tonumber(ARGV[first + 2 * n - 1]) then
      ends[#ends + 1], ends[#ends + 2] = ARGV[1], ids[n]
      leases[#leases + 1], leases[#leases + 2] = ids[n], ARGV[2] .. ' ' .. due_at
      claimed[#claimed + 1] = ids[n]
    end
  end
  if #ends > 0 then redis.call('ZADD', KEYS[k], 'XX', unpack(ends)) end
end
if #leases > 0 then redis.call('HSET', KEYS[1], unpack(leases)) end
return claimed
