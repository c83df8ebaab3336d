-- announce: somebody says that ids have ended, so those that are pending are polled soon; each at
-- most once in a while, however often that is said.
-- WITH    due_sooner
-- KEYS    1 leases, then per id: task, due
-- ARGV    1 now  2 seconds by which it goes before others that are due  3 seconds between two polls
--         of an id for what is said of it, then the ids
-- RETURNS per id: 1 it is polled soon | 0 it has ended, or is gone | 2 it is being polled
local answer, now = {}, tonumber(ARGV[1])
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full
for i = 4, #ARGV do
  local task, due, said = KEYS[2 * i - 6], KEYS[2 * i - 5], 0
  local row = redis.call('HMGET', task, 'state', 'in', 'submitted_at', 'polled_at', 'announced_at')
  if not row[1] and (row[2] or row[3]) then
    local soon, polled, before = now - ARGV[2], tonumber(row[4]) or 0, tonumber(row[5])
    if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then said = 2
    elseif before and before >= polled then said = 1 -- its poll has not come yet
    else
      if before and polled + ARGV[3] > now then soon = polled + ARGV[3] end
      redis.call('HSET', task, 'announced_at', ARGV[1])
      due_sooner(due, string.format('%.3f', soon), ARGV[i])
      said = 1
    end
  end
  answer[#answer + 1] = said
end
return answer
