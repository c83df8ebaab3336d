-- erase: delete all that is kept of ended ids, with their deliveries, whatever becomes of these.
-- Their places in the journal stay empty, so that no other place changes; a minute with nothing
-- else leaves the journal.
-- WITH    references words
-- KEYS    1 delivery leases  2 inbox  3 dead  4 ended  5 quarantined  6 leases  7 common
--         8 common-open  9 common-until  10 own-keys  11 minutes, then per id: task, result, then
--         per place: ids of its minute, then per subscription: delivery, queue, retries
-- ARGV    1 now, then per id: id, 1 for one that is erased whatever its record says if it is
--         quarantined, its key ('': none), number of places, number of subscriptions, then per
--         place: the minute, its number in that (0 is the first), then the subscriptions
-- RETURNS the ids that were erased; not one that has other webhooks by now, or is tracked anew
local erased, left = {}, {}
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full

-- True if an id has ended, and its record names as many subscriptions.
local function as_it_was(task, number)
  local state, webhooks, parts = unpack(redis.call('HMGET', task, 'state', 'webhooks', 'in'))
  return state and count(field('webhooks', webhooks, parts, KEYS[7])) == number
end

local function leave_place(id, ids, at)
  local minute, number = ARGV[at], ARGV[at + 1]
  if redis.call('LINDEX', ids, number) ~= id then return end
  redis.call('LSET', ids, number, '')
  left[ids] = minute
end

local function erase_delivery(name, key)
  redis.call('DEL', KEYS[key])
  for _, zset in ipairs({KEYS[2], KEYS[3], KEYS[key + 1], KEYS[key + 2]}) do
    redis.call('ZREM', zset, name)
  end
  redis.call('HDEL', KEYS[1], name)
end

local i, key = 2, 12
while i <= #ARGV do
  local id, quarantined, places, told = ARGV[i], ARGV[i + 1] == '1', ARGV[i + 3], ARGV[i + 4]
  local first = i + 4 + 2 * places -- the argument before its subscriptions
  if quarantined and redis.call('HEXISTS', KEYS[5], id) == 1
    or not quarantined and as_it_was(KEYS[key], tonumber(told)) then
    delete(KEYS[key], KEYS[key + 1], ARGV[1])
    for n = 1, places do leave_place(id, KEYS[key + 1 + n], i + 3 + 2 * n) end
    for n = 1, told do erase_delivery(ARGV[first + n] .. ':' .. id, key + places - 1 + 3 * n) end
    redis.call('ZREM', KEYS[10], ARGV[i + 2] .. '\0' .. id)
    redis.call('ZREM', KEYS[4], id)
    redis.call('HDEL', KEYS[5], id)
    redis.call('HDEL', KEYS[6], id)
    erased[#erased + 1] = id
  end
  i, key = first + 1 + told, key + 2 + places + 3 * told
end
count_references(KEYS[8], KEYS[9])
for ids, minute in pairs(left) do
  if #redis.call('LPOS', ids, '', 'COUNT', 0) == redis.call('LLEN', ids) then
    redis.call('DEL', ids)
    redis.call('ZREM', KEYS[11], minute)
  end
end
return erased
