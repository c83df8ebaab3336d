-- seize: lease pending ids whatever they wait for; whoever has leased them before writes nothing.
-- A seized id keeps its place in `due`: if this process dies, it is polled as usual.
-- KEYS    1 leases  2 quarantined, then per id: task
-- ARGV    1 now  2 token, then the ids
-- RETURNS the ids that were leased
local leases, seized = {}, {}
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full
for i = 3, #ARGV do
  local row = redis.pcall('HMGET', KEYS[i], 'state', 'in', 'submitted_at')
  local pending = not row.err and not row[1] and (row[2] or row[3])
  if pending and redis.call('HEXISTS', KEYS[2], ARGV[i]) == 0 then
    leases[#leases + 1], leases[#leases + 2] = ARGV[i], ARGV[2] .. ' ' .. ARGV[1]
    seized[#seized + 1] = ARGV[i]
  end
end
if #leases > 0 then redis.call('HSET', KEYS[1], unpack(leases)) end
return seized
