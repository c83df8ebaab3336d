-- settle: write outcomes back; a result and its deliveries are one write, and an end is final.
-- WITH    references deadline ending
-- KEYS    1 leases  2 inbox  3 counts  4 events  5 producers  6 ended  7 common  8 common-open
--         9 common-until, then per id: due, task, result
-- ARGV    1 now  2 token  3 retention  4 events to keep  5 seconds to keep them at least, then
--         per id: id, producer, state, due at (of one that expires, its deadline as it was read),
--         record, delay, number of fields and values that change, and these, `webhooks` first
-- RETURNS per id, flat: 'stale' | state, subscriptions that became pending (joined by spaces)
local answer, rows, ids, written, due_again = {}, {}, {}, {}, {}
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full
local i = 6
while i <= #ARGV do
  rows[#rows + 1], ids[#ids + 1], i = i, ARGV[i], i + 7 + ARGV[i + 6]
end

-- Write one outcome; false if the id has ended, is gone, or has a later deadline by now.
local function write(i, due, task, result)
  local state = ARGV[i + 2]
  local row = redis.call('HMGET', task, 'state', 'webhooks', 'in', 'submitted_at')
  if row[1] or not (row[3] or row[4]) then return false end
  if state == 'expired' and later(task, row[3], KEYS[7], ARGV[i + 3]) then return false end
  if state ~= 'pending' then
    local own = ARGV[i + 7] == 'webhooks' and ARGV[i + 8] or row[2]
    return finish(i, due, task, result, own, row[3])
  end
  redis.call('HSET', task, unpack(ARGV, i + 7, i + 6 + ARGV[i + 6]))
  due_again[due] = due_again[due] or {}
  table.insert(due_again[due], ARGV[i + 3])
  table.insert(due_again[due], ARGV[i])
  return ''
end

for n, lease in ipairs(redis.call('HMGET', KEYS[1], unpack(ids))) do
  local became, pending = 'stale', ''
  if lease and string.match(lease, '^(%S+) ') == ARGV[2] then
    local wrote = write(rows[n], unpack(KEYS, 7 + 3 * n, 9 + 3 * n))
    if wrote then became, pending, written[#written + 1] = ARGV[rows[n] + 2], wrote, ids[n] end
  end
  answer[#answer + 1], answer[#answer + 2] = became, pending
end
if #written > 0 then redis.call('HDEL', KEYS[1], unpack(written)) end
for due, some in pairs(due_again) do redis.call('ZADD', due, unpack(some)) end
write_ends()
count_references(KEYS[8], KEYS[9])
return answer
