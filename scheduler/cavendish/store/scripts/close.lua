-- close: end deliveries, each as delivered or as a dead letter, and write its last attempt down.
-- A record whose deliveries are all closed is kept for a while: as long as its longest-kept dead
-- letter, and as long as its latest delivery asks for.
-- WITH    references
-- KEYS    1 delivery leases  2 dead  3 counts  4 common-open  5 common-until, then per delivery:
--         delivery, task, result, queue
-- ARGV    1 state: 'delivered' | 'dead'  2 now  3 token  4 seconds to keep, then per delivery:
--         delivery, outcome, log
-- RETURNS how many still had this token
local state, now, token, keep, names, closed, gone = ARGV[1], ARGV[2], ARGV[3], ARGV[4], {}, {}, {}
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full
local function count(list) return select(2, string.gsub(list or '', '%S+', '')) end
local function has(list, word)
  return string.find(' ' .. list .. ' ', ' ' .. word .. ' ', 1, true)
end

local function close_in_task(task, result, subscription)
  local row = redis.pcall('HMGET', task, 'webhooks', 'state', 'closed', 'kept_for', 'common')
  if row.err then return end -- the record is unreadable
  local webhooks, ended, list, kept_for, parts = unpack(row)
  if not ended or not webhooks or not has(webhooks, subscription) then
    return -- the delivery belongs to an earlier record of this id
  end
  list = list or ''
  if not has(list, subscription) then list = list .. ' ' .. subscription end
  kept_for = state == 'dead' and keep or kept_for or 0
  redis.call('HSET', task, 'closed', list, unpack(state == 'dead' and {'kept_for', keep} or {}))
  if count(list) < count(webhooks) then return end
  local seconds = math.max(tonumber(keep), tonumber(kept_for))
  expire(task, parts, now, seconds)
  redis.call('EXPIRE', result, seconds)
end

for i = 5, #ARGV, 3 do names[#names + 1] = ARGV[i] end
for n, lease in ipairs(#names > 0 and redis.call('HMGET', KEYS[1], unpack(names)) or {}) do
  local name, i, key = names[n], 2 + 3 * n, 2 + 4 * n
  local delivery, queue = KEYS[key], KEYS[key + 3]
  if lease == token then
    if type(redis.pcall('HINCRBY', delivery, 'attempts', 1)) == 'table' then -- unreadable
      redis.call('DEL', delivery)
      redis.call('HINCRBY', delivery, 'attempts', 1)
    end
    redis.call('HSET', delivery, 'state', state, 'outcome', ARGV[i + 1], 'log', ARGV[i + 2],
      unpack(state == 'dead' and {} or {'delivered_at', now}))
    if state == 'dead' then redis.call('ZADD', KEYS[2], now, name) end
    redis.call('EXPIRE', delivery, keep)
    close_in_task(KEYS[key + 1], KEYS[key + 2], string.match(name, '^[^:]+'))
    closed[#closed + 1], gone[queue] = name, gone[queue] or {}
    table.insert(gone[queue], name)
  end
end
for queue, some in pairs(gone) do redis.call('ZREM', queue, unpack(some)) end
if #closed == 0 then return 0 end
redis.call('HDEL', KEYS[1], unpack(closed))
redis.call('HINCRBY', KEYS[3], state == 'dead' and 'buried' or 'delivered', #closed)
count_references(KEYS[4], KEYS[5])
return #closed
