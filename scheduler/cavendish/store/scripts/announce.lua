-- announce: somebody says that ids have ended, so those that are pending are polled soon; each at
-- most once in a while, however often that is said.
-- KEYS    1 leases, then per id: task, due
-- ARGV    1 now  2 seconds between two polls of an id, then the ids
-- RETURNS per id: 1 it is polled soon | 0 it has ended, or is gone | 2 it is being polled
local answer = {}
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full
for i = 3, #ARGV do
  local task, due, said = KEYS[2 * i - 4], KEYS[2 * i - 3], 0
  local row = redis.call('HMGET', task, 'state', 'in', 'submitted_at', 'polled_at')
  if not row[1] and (row[2] or row[3]) then
    said = 2
    if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 0 then
      local soon = math.max(tonumber(ARGV[1]), (tonumber(row[4]) or 0) + tonumber(ARGV[2]))
      redis.call('HSET', task, 'announced_at', ARGV[1])
      redis.call('ZADD', due, 'XX', 'LT', string.format('%.3f', soon), ARGV[i])
      said = 1
    end
  end
  answer[#answer + 1] = said
end
return answer
