-- erase: delete all that is kept of ended ids, with their deliveries, whatever becomes of these.
-- WITH    references words
-- KEYS    1 delivery leases  2 inbox  3 dead  4 ended  5 quarantined  6 leases  7 common
--         8 common-open  9 common-until, then per id: task, result, then per subscription of it:
--         delivery, queue, retries
-- ARGV    1 now, then per id: id, 1 for one that is erased whatever its record says, number of
--         subscriptions, and these
-- RETURNS the ids that were erased; not one that has other webhooks by now, or is tracked anew
local erased = {}
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full

-- True if an id has ended, and its record names as many subscriptions.
local function as_it_was(task, number)
  local state, webhooks, parts = unpack(redis.call('HMGET', task, 'state', 'webhooks', 'in'))
  return state and count(field('webhooks', webhooks, parts, KEYS[7])) == number
end

local function erase_delivery(name, key)
  redis.call('DEL', KEYS[key])
  for _, zset in ipairs({KEYS[2], KEYS[3], KEYS[key + 1], KEYS[key + 2]}) do
    redis.call('ZREM', zset, name)
  end
  redis.call('HDEL', KEYS[1], name)
end

local i, key = 2, 10
while i <= #ARGV do
  local id, number = ARGV[i], tonumber(ARGV[i + 2])
  if ARGV[i + 1] == '1' or as_it_was(KEYS[key], number) then
    delete(KEYS[key], KEYS[key + 1], ARGV[1])
    for n = 1, number do erase_delivery(ARGV[i + 2 + n] .. ':' .. id, key - 1 + 3 * n) end
    redis.call('ZREM', KEYS[4], id)
    redis.call('HDEL', KEYS[5], id)
    redis.call('HDEL', KEYS[6], id)
    erased[#erased + 1] = id
  end
  i, key = i + 3 + number, key + 2 + 3 * number
end
count_references(KEYS[8], KEYS[9])
return erased
