-- close: end deliveries, each as delivered, as skipped or as a dead letter, and write its last
-- attempt down; a skipped one had none, and of one that was told to its group nothing is written.
-- A record whose deliveries are all closed is kept as long as a dead letter or the last one asks.
-- WITH    references words
-- KEYS    1 delivery leases  2 dead  3 counts  4 common-open  5 common-until, then per delivery:
--         delivery, task, result, queue
-- ARGV    1 state: 'delivered' | 'skipped' | 'dead' | 'told'  2 now  3 token  4 seconds to keep,
--         then per delivery: delivery, outcome, log
-- RETURNS how many still had this token
local state, now, token, keep, names, closed, gone = ARGV[1], ARGV[2], ARGV[3], ARGV[4], {}, {}, {}
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full

local function close_in_task(task, result, subscription)
  local row = redis.pcall('HMGET', task, 'webhooks', 'state', 'closed', 'kept_for', 'in', 'skipped')
  if row.err then return end -- the record is unreadable
  local webhooks, ended, list, kept_for, parts, skipped = unpack(row)
  if not ended or not webhooks or not has(webhooks, subscription) then
    return -- the delivery belongs to an earlier record of this id
  end
  list = with(list or '', subscription)
  kept_for = state == 'dead' and keep or kept_for or 0
  redis.call('HSET', task, 'closed', list, unpack(state == 'dead' and {'kept_for', keep} or {}))
  skipped = with(skipped or '', subscription)
  if state == 'skipped' then redis.call('HSET', task, 'skipped', skipped) end
  if count(list) < count(webhooks) then return end
  local seconds = math.max(tonumber(keep), tonumber(kept_for))
  expire(task, parts, now, seconds)
  redis.call('EXPIRE', result, seconds)
end

local function write_down(delivery, name, outcome, log)
  local attempts = state == 'skipped' and 0 or 1
  if type(redis.pcall('HINCRBY', delivery, 'attempts', attempts)) == 'table' then -- unreadable
    redis.call('DEL', delivery)
    redis.call('HINCRBY', delivery, 'attempts', attempts)
  end
  redis.call('HSET', delivery, 'state', state, 'outcome', outcome, 'log', log)
  local died_at = ('%.6f'):format(now - #closed / 1e6) -- no two at once: a page may end there
  if state == 'dead' then redis.call('ZADD', KEYS[2], died_at, name) end
  redis.call('EXPIRE', delivery, keep)
end

for i = 5, #ARGV, 3 do names[#names + 1] = ARGV[i] end
for n, lease in ipairs(#names > 0 and redis.call('HMGET', KEYS[1], unpack(names)) or {}) do
  local name, i, key = names[n], 2 + 3 * n, 2 + 4 * n
  local delivery, queue = KEYS[key], KEYS[key + 3]
  if lease == token then
    if state ~= 'told' then write_down(delivery, name, ARGV[i + 1], ARGV[i + 2]) end
    close_in_task(KEYS[key + 1], KEYS[key + 2], string.match(name, '^[^:]+'))
    closed[#closed + 1], gone[queue] = name, gone[queue] or {}
    table.insert(gone[queue], name)
  end
end
for queue, some in pairs(gone) do redis.call('ZREM', queue, unpack(some)) end
if #closed == 0 then return 0 end
redis.call('HDEL', KEYS[1], unpack(closed))
local total = ({dead = 'buried', told = false})[state]
if total ~= false then redis.call('HINCRBY', KEYS[3], total or state, #closed) end
count_references(KEYS[4], KEYS[5])
return #closed
