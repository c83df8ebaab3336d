-- settle: write outcomes back; a result and its deliveries are one write, and an end is final.
-- WITH    references deadline
-- KEYS    1 leases  2 inbox  3 counts  4 events  5 producers  6 ended  7 common  8 common-open
--         9 common-until, then per id: due, task, result
-- ARGV    1 now  2 token  3 retention  4 events to keep  5 seconds to keep them at least, then
--         per id: id, producer, state, due at (of one that expires, its deadline as it was read),
--         record, delay, number of fields and values that change, and these, `webhooks` first
-- RETURNS per id, flat: 'stale' | state, subscriptions that became pending (joined by spaces)
local now, answer, counts, gone, written, inbox, kept = ARGV[1], {}, {}, {}, {}, {}, {}
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full

local function finish(i, due, task, result, own, parts)
  local id, state, webhooks = ARGV[i], ARGV[i + 2], field('webhooks', own, parts, KEYS[7]) or ''
  counts[state], gone[due] = (counts[state] or 0) + 1, gone[due] or {producer = ARGV[i + 1]}
  table.insert(gone[due], id)
  redis.call('SET', result, ARGV[i + 4], unpack(webhooks == '' and {'EX', ARGV[3]} or {}))
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[4], '*', 'id', id, 'state', state, 'at', now,
    'delay', ARGV[i + 5])
  if webhooks == '' then
    expire(task, parts, now, ARGV[3])
    return ''
  end
  if not own then redis.call('HSET', task, 'webhooks', webhooks) end
  kept[#kept + 1], kept[#kept + 2] = now, id
  for subscription in string.gmatch(webhooks, '%S+') do
    inbox[#inbox + 1], inbox[#inbox + 2] = now, subscription .. ':' .. id
  end
  return webhooks
end

local i, key = 6, 10
while i <= #ARGV do
  local id, state, words, became, pending = ARGV[i], ARGV[i + 2], ARGV[i + 6], 'stale', ''
  if string.match(redis.call('HGET', KEYS[1], id) or '', '^(%S+) ') == ARGV[2] then
    local row = redis.call('HMGET', KEYS[key + 1], 'state', 'webhooks', 'in', 'submitted_at')
    if not row[1] and (row[3] or row[4])
      and not (state == 'expired' and later(KEYS[key + 1], row[3], KEYS[7], ARGV[i + 3])) then
      became, written[#written + 1] = state, id
      redis.call('HSET', KEYS[key + 1], unpack(ARGV, i + 7, i + 6 + words))
      local own = ARGV[i + 7] == 'webhooks' and ARGV[i + 8] or row[2]
      if state == 'pending' then redis.call('ZADD', KEYS[key], ARGV[i + 3], id)
      else pending = finish(i, KEYS[key], KEYS[key + 1], KEYS[key + 2], own, row[3]) end
    end
  end
  answer[#answer + 1], answer[#answer + 2], i, key = became, pending, i + 7 + words, key + 3
end
if #written > 0 then redis.call('HDEL', KEYS[1], unpack(written)) end
if #inbox > 0 then redis.call('ZADD', KEYS[2], unpack(inbox)) end
if #kept > 0 then redis.call('ZADD', KEYS[6], unpack(kept)) end
count_references(KEYS[8], KEYS[9])
for due, ids in pairs(gone) do
  redis.call('ZREM', due, unpack(ids))
  if redis.call('EXISTS', due) == 0 then redis.call('SREM', KEYS[5], ids.producer) end
end
for state, number in pairs(counts) do redis.call('HINCRBY', KEYS[3], state, number) end
-- No record without webhooks outlives the events: so the lane is known for as long as there is one.
if next(counts) and redis.call('TTL', KEYS[4]) <= tonumber(ARGV[5]) then
  redis.call('EXPIRE', KEYS[4], ARGV[5])
end
return answer
