-- claim: lease chosen ids, each if its due time is still the one that was seen.
-- A leased id keeps its place in `due`, at the end of the lease: a lease that ends is a due id.
-- KEYS    1 leases, then per id: due
-- ARGV    1 lease ends at  2 token, then per id: id, the due time that was seen
-- RETURNS the ids that were leased
local claimed, leases, ids, seen = {}, {}, {}, {}
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full
for i = 3, #ARGV, 2 do
  local due = KEYS[2 + (i - 3) / 2]
  ids[due], seen[due] = ids[due] or {}, seen[due] or {}
  table.insert(ids[due], ARGV[i])
  table.insert(seen[due], ARGV[i + 1])
end
for due, some in pairs(ids) do
  local ends = {}
  for n, due_at in ipairs(redis.call('ZMSCORE', due, unpack(some))) do
    if due_at and tonumber(due_at) == tonumber(seen[due][n]) then
      ends[#ends + 1], ends[#ends + 2] = ARGV[1], some[n]
      leases[#leases + 1], leases[#leases + 2] = some[n], ARGV[2] .. ' ' .. due_at
      claimed[#claimed + 1] = some[n]
    end
  end
  if #ends > 0 then redis.call('ZADD', due, 'XX', unpack(ends)) end
end
if #leases > 0 then redis.call('HSET', KEYS[1], unpack(leases)) end
return claimed
