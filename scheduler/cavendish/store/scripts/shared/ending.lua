-- ending: what the end of a pending record writes: of each at once, and at last of all together.
-- Behind `references`.
-- KEYS    inbox, counts, events, producers, ended, common: as in settle.lua; due, task, result: of
--         one id
local counts, gone, producers, kept, inbox = {}, {}, {}, {}, {}

-- Write the outcome that begins at ARGV[i]; returns the subscriptions that are pending now. `own`:
-- those that the record says itself; `parts`: the common parts that it names.
local function finish(i, due, task, result, own, parts)
  local now, id, state, last = ARGV[1], ARGV[i], ARGV[i + 2], i + 6 + ARGV[i + 6]
  local webhooks = field('webhooks', own, parts, KEYS[7]) or ''
  counts[state], gone[due], producers[due] = (counts[state] or 0) + 1, gone[due] or {}, ARGV[i + 1]
  table.insert(gone[due], id)
  redis.call('SET', result, ARGV[i + 4], unpack(webhooks == '' and {'EX', ARGV[3]} or {}))
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[4], '*', 'id', id, 'state', state, 'at', now,
    'delay', ARGV[i + 5])
  if webhooks == '' then
    redis.call('HSET', task, unpack(ARGV, i + 7, last))
    expire(task, parts, now, ARGV[3])
    return ''
  end
  redis.call('HSET', task, 'webhooks', webhooks, unpack(ARGV, i + 7, last))
  kept[#kept + 1], kept[#kept + 2] = now, id
  for subscription in string.gmatch(webhooks, '%S+') do
    inbox[#inbox + 1], inbox[#inbox + 2] = now, subscription .. ':' .. id
  end
  return webhooks
end

local function write_ends()
  if #inbox > 0 then redis.call('ZADD', KEYS[2], unpack(inbox)) end
  if #kept > 0 then redis.call('ZADD', KEYS[6], unpack(kept)) end
  for due, ids in pairs(gone) do
    redis.call('ZREM', due, unpack(ids))
    if redis.call('EXISTS', due) == 0 then redis.call('SREM', KEYS[5], producers[due]) end
  end
  for state, number in pairs(counts) do redis.call('HINCRBY', KEYS[3], state, number) end
  -- No record without webhooks outlives the events: so the lane is known as long as there is one.
  if next(counts) and redis.call('TTL', KEYS[4]) <= tonumber(ARGV[5]) then
    redis.call('EXPIRE', KEYS[4], ARGV[5])
  end
end
