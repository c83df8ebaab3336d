-- claim_delivery: take deliveries that are due, one of each endpoint in turn: first the fresh ones of all, then retries.
-- In a queue a score that lies ahead is a lease, so it tells how many calls are in flight; retries wait in a set apart.
-- KEYS    1 endpoint_index  2 leases of deliveries, then per endpoint: queue, retries
-- ARGV    1 now  2 lease ends at  3 token  4 at most, then per endpoint: endpoint, calls it may have in flight
-- RETURNS the deliveries taken
local now, till, token, left = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local endpoints, room, taken = (#ARGV - 4) / 2, {}, {}
for e = 1, endpoints do
  room[e] = tonumber(ARGV[4 + 2 * e]) - redis.call('ZCOUNT', KEYS[1 + 2 * e], '(' .. now, '+inf')
end
redis.call('HDEL', KEYS[2], '') -- see Connection.write_when_full: takes no memory, so that what follows may
for kind = 1, 2 do
  local due, more, turn = {}, true, 1
  for e = 1, endpoints do
    local most = math.min(room[e], left)
    due[e] = most > 0 and redis.call('ZRANGEBYSCORE', KEYS[kind + 2 * e], '-inf', now, 'LIMIT', 0, most) or {}
  end
  while more and left > 0 do
    more = false
    for e = 1, endpoints do
      local delivery = due[e][turn]
      if delivery and left > 0 then
        redis.call('HSET', KEYS[2], delivery, token)
        redis.call('ZADD', KEYS[1 + 2 * e], till, delivery)
        if kind == 2 then redis.call('ZREM', KEYS[2 + 2 * e], delivery) end
        taken[#taken + 1] = delivery
        room[e], left, more = room[e] - 1, left - 1, true
      end
    end
    turn = turn + 1
  end
end
for e = 1, endpoints do
  local next_at
  for kind = 1, 2 do
    local first = redis.call('ZRANGE', KEYS[kind + 2 * e], 0, 0, 'WITHSCORES')[2]
    if first and (not next_at or tonumber(first) < tonumber(next_at)) then next_at = first end
  end
  if next_at then redis.call('ZADD', KEYS[1], next_at, ARGV[3 + 2 * e]) else redis.call('ZREM', KEYS[1], ARGV[3 + 2 * e]) end
end
return taken
