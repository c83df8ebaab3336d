-- set_deadline: give pending ids another deadline, and poll them at the latest then.
-- WITH    references deadline acts due_sooner
-- KEYS    1 deadlines  2 ids of the new deadline  3 leases  4 common, then per id: task, due
-- ARGV    1 the new deadline  2 when it is looked at  3 what is noted of it, then the ids
-- RETURNS per id: 1 changed | 0 it has ended, or is gone
local answer, sooner = {}, {}
redis.call('HDEL', KEYS[3], '') -- takes no memory: see Connection.write_when_full
for i = 4, #ARGV do
  local id, task, due, changed = ARGV[i], KEYS[2 * i - 3], KEYS[2 * i - 2], 0
  local row = redis.call('HMGET', task, 'state', 'in', 'submitted_at')
  if not row[1] and (row[2] or row[3]) then
    -- Else it stands in a list that lets it wait for its own deadline.
    if later(task, row[2], KEYS[4], ARGV[1]) then sooner[#sooner + 1] = id end
    redis.call('HSET', task, 'deadline_at', ARGV[1])
    note_act(task, ARGV[3])
    if redis.call('HEXISTS', KEYS[3], id) == 0 then -- a leased id is due when its lease ends
      due_sooner(due, ARGV[1], id)
    end
    changed = 1
  end
  answer[#answer + 1] = changed
end
if #sooner > 0 then
  redis.call('ZADD', KEYS[1], ARGV[2], ARGV[2])
  redis.call('RPUSH', KEYS[2], unpack(sooner))
end
return answer
