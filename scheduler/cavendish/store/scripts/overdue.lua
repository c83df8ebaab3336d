-- overdue: go on with ids of which a deadline was looked at: lease those that are overdue, whatever
-- they wait for, and let the others wait for their own deadline.
-- A leased id keeps its place in `due`: if this process dies, it is polled as usual.
-- KEYS    1 deadlines  2 leases  3 quarantined  4 ids of this deadline  5 ids of the deadline at
--         which leased ids are looked at again, then per id: task, ids of its deadline
-- ARGV    1 this deadline  2 the other one  3 token ('': lease none)  4 before which time overdue
--         ids were due, then per id: id, the time of its own deadline, '' if it is overdue, has
--         ended or is gone
-- RETURNS the ids that were leased
local leased = {}
redis.call('HDEL', KEYS[2], '') -- takes no memory: see Connection.write_when_full

local function wait(id, deadline, ids)
  redis.call('ZADD', KEYS[1], deadline, deadline)
  redis.call('RPUSH', ids, id)
end

for i = 5, #ARGV, 2 do
  local id, deadline, key = ARGV[i], ARGV[i + 1], i + 1
  if redis.call('LREM', KEYS[4], 1, id) == 1 then
    if deadline ~= '' then
      wait(id, deadline, KEYS[key + 1])
    elseif redis.call('HEXISTS', KEYS[3], id) == 0 then
      local task = KEYS[key]
      local state = redis.pcall('HGET', task, 'state') -- an error where the record is unreadable
      if type(state) == 'table' or not state and redis.call('EXISTS', task) == 1 then
        wait(id, ARGV[2], KEYS[5])
        if ARGV[3] ~= '' then
          redis.call('HSET', KEYS[2], id, ARGV[3] .. ' ' .. ARGV[4])
          leased[#leased + 1] = id
        end
      end
    end
  end
end
if redis.call('EXISTS', KEYS[4]) == 0 then redis.call('ZREM', KEYS[1], ARGV[1]) end
return leased
