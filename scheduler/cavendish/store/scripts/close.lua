-- close: end deliveries, each as delivered or as a dead letter, and write its last attempt down.
-- A record whose deliveries are all closed is kept for a while: as long as its longest-kept dead
-- letter, and as long as its latest delivery asks for.
-- WITH    references
-- KEYS    1 delivery leases  2 dead  3 counts  4 common-open  5 common-until, then per delivery:
--         delivery, task, result, queue
-- ARGV    1 state: 'delivered' | 'dead'  2 now  3 token  4 seconds to keep, then per delivery:
--         delivery, outcome, log
-- RETURNS how many still had this token
local state, now, token, keep, closed = ARGV[1], ARGV[2], ARGV[3], ARGV[4], 0
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full
local function count(list) return select(2, string.gsub(list or '', '%S+', '')) end
local function has(list, word)
  return string.find(' ' .. list .. ' ', ' ' .. word .. ' ', 1, true)
end

local function close_in_task(key, subscription)
  local task = KEYS[key + 1]
  local row = redis.pcall('HMGET', task, 'webhooks', 'state', 'closed', 'kept_for')
  if row.err then return end -- the record is unreadable
  local webhooks, ended, list, kept_for = unpack(row)
  if not ended or not webhooks or not has(webhooks, subscription) then
    return -- the delivery belongs to an earlier record of this id
  end
  list = list or ''
  if not has(list, subscription) then list = list .. ' ' .. subscription end
  redis.call('HSET', task, 'closed', list)
  if state == 'dead' then
    redis.call('HSET', task, 'kept_for', keep)
    kept_for = keep
  end
  if count(list) < count(webhooks) then return end
  local seconds = math.max(tonumber(keep), tonumber(kept_for or 0))
  expire(task, KEYS[4], KEYS[5], now, seconds)
  redis.call('EXPIRE', KEYS[key + 2], seconds)
end

for i = 5, #ARGV, 3 do
  local name, key = ARGV[i], 6 + (i - 5) / 3 * 4
  local delivery = KEYS[key]
  if redis.call('HGET', KEYS[1], name) == token then
    if type(redis.pcall('HINCRBY', delivery, 'attempts', 1)) == 'table' then -- unreadable
      redis.call('DEL', delivery)
      redis.call('HINCRBY', delivery, 'attempts', 1)
    end
    redis.call('HSET', delivery, 'state', state, 'outcome', ARGV[i + 1], 'log', ARGV[i + 2])
    if state == 'dead' then
      redis.call('ZADD', KEYS[2], now, name)
    else
      redis.call('HSET', delivery, 'delivered_at', now)
    end
    redis.call('EXPIRE', delivery, keep)
    close_in_task(key, string.match(name, '^[^:]+'))
    redis.call('HINCRBY', KEYS[3], state == 'dead' and 'buried' or 'delivered', 1)
    redis.call('ZREM', KEYS[key + 3], name)
    redis.call('HDEL', KEYS[1], name)
    closed = closed + 1
  end
end
return closed
