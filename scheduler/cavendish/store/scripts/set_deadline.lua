-- set_deadline: give pending ids another deadline, and poll them at the latest then.
-- KEYS    1 deadlines  2 ids of the new deadline  3 leases, then per id: task, due
-- ARGV    1 the new deadline  2 when it is looked at, then per id: id, 1 if the old one is later
-- RETURNS per id: 1 changed | 0 it has ended, or is gone
local answer, sooner = {}, {}
redis.call('HDEL', KEYS[3], '') -- takes no memory: see Connection.write_when_full
for i = 3, #ARGV, 2 do
  local id, task, due, changed = ARGV[i], KEYS[i + 1], KEYS[i + 2], 0
  local row = redis.call('HMGET', task, 'state', 'in', 'submitted_at')
  if not row[1] and (row[2] or row[3]) then
    redis.call('HSET', task, 'deadline_at', ARGV[1])
    if redis.call('HEXISTS', KEYS[3], id) == 0 then -- a leased id is due when its lease ends
      redis.call('ZADD', due, 'XX', 'LT', ARGV[1], id)
    end
    if ARGV[i + 1] == '1' then sooner[#sooner + 1] = id end -- else its list lets it wait longer
    changed = 1
  end
  answer[#answer + 1] = changed
end
if #sooner > 0 then
  redis.call('ZADD', KEYS[1], ARGV[2], ARGV[2])
  redis.call('RPUSH', KEYS[2], unpack(sooner))
end
return answer
