-- bury: lay deliveries into the dead letters with their reason; what they announce is kept as long as they lie there.
-- KEYS    1 leases of deliveries  2 dead  3 counts, then per delivery: row, task, result, queue
-- ARGV    1 now  2 token  3 kept for, then per delivery: delivery, reason, log
-- RETURNS how many were still ours
local ours = 0
redis.call('HDEL', KEYS[1], '') -- see Connection.write_when_full: takes no memory, so that what follows may
local function words(list) return select(2, string.gsub(list or '', '%S+', '')) end
for i = 4, #ARGV, 3 do
  local delivery, key = ARGV[i], 4 + (i - 4) / 3 * 4
  local row, task = KEYS[key], KEYS[key + 1]
  if redis.call('HGET', KEYS[1], delivery) == ARGV[2] then
    if type(redis.pcall('HINCRBY', row, 'attempts', 1)) == 'table' then -- an error: what was tried is unreadable
      redis.call('DEL', row)
      redis.call('HINCRBY', row, 'attempts', 1)
    end
    redis.call('ZADD', KEYS[2], ARGV[1], delivery)
    redis.call('HSET', row, 'state', 'dead', 'outcome', ARGV[i + 1], 'log', ARGV[i + 2])
    redis.call('EXPIRE', row, ARGV[3])
    local subscription, webhooks = string.match(delivery, '^[^:]+'), redis.pcall('HGET', task, 'webhooks')
    if type(webhooks) == 'string' and string.find(' ' .. webhooks .. ' ', ' ' .. subscription .. ' ', 1, true)
        and redis.call('HGET', task, 'state') ~= 'pending' then -- else it is of an earlier record, or that is unreadable
      local closed = redis.call('HGET', task, 'closed') or ''
      if not string.find(closed .. ' ', ' ' .. subscription .. ' ', 1, true) then closed = closed .. ' ' .. subscription end
      redis.call('HSET', task, 'closed', closed, 'kept_for', ARGV[3])
      if words(closed) >= words(webhooks) then
        for k = key + 1, key + 2 do redis.call('EXPIRE', KEYS[k], ARGV[3]) end
      end
    end
    redis.call('HINCRBY', KEYS[3], 'buried', 1)
    redis.call('ZREM', KEYS[key + 3], delivery)
    redis.call('HDEL', KEYS[1], delivery)
    ours = ours + 1
  end
end
return ours
