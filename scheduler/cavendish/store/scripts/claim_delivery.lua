-- claim_delivery: lease due deliveries, one of each endpoint in turn: first new ones, then retries.
-- A score ahead of now in a queue is a lease, so it tells how many calls to an endpoint are in
-- flight; deliveries that wait for a retry lie in a set of their own.
-- KEYS    1 endpoint index  2 delivery leases, then per endpoint: queue, retries
-- ARGV    1 now  2 lease ends at  3 token  4 at most, then per endpoint: endpoint, calls that
--         it may have in flight
-- RETURNS the deliveries that were leased
local now, lease_end, token, left = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local endpoints, room, claimed, leases, taken = (#ARGV - 4) / 2, {}, {}, {}, {}
for e = 1, endpoints do
  taken[e] = {}
  room[e] = tonumber(ARGV[4 + 2 * e]) - redis.call('ZCOUNT', KEYS[1 + 2 * e], '(' .. now, '+inf')
end
redis.call('HDEL', KEYS[2], '') -- takes no memory: see Connection.write_when_full
for kind = 1, 2 do -- 1 queue, 2 retries
  local due, more, turn = {}, true, 1
  for e = 1, endpoints do
    local most = math.min(room[e], left)
    due[e] = most > 0
      and redis.call('ZRANGEBYSCORE', KEYS[kind + 2 * e], '-inf', now, 'LIMIT', 0, most) or {}
  end
  while more and left > 0 do
    more = false
    for e = 1, endpoints do
      local delivery = due[e][turn]
      if delivery and left > 0 then
        leases[#leases + 1], leases[#leases + 2] = delivery, token
        table.insert(taken[e], lease_end)
        table.insert(taken[e], delivery)
        if kind == 2 then redis.call('ZREM', KEYS[2 + 2 * e], delivery) end
        claimed[#claimed + 1] = delivery
        room[e], left, more = room[e] - 1, left - 1, true
      end
    end
    turn = turn + 1
  end
end
if #leases > 0 then redis.call('HSET', KEYS[2], unpack(leases)) end
for e = 1, endpoints do
  if #taken[e] > 0 then redis.call('ZADD', KEYS[1 + 2 * e], unpack(taken[e])) end
  local endpoint, next_at = ARGV[3 + 2 * e], nil
  for kind = 1, 2 do
    local first_at = redis.call('ZRANGE', KEYS[kind + 2 * e], 0, 0, 'WITHSCORES')[2]
    if first_at and (not next_at or tonumber(first_at) < tonumber(next_at)) then
      next_at = first_at
    end
  end
  if next_at then
    redis.call('ZADD', KEYS[1], next_at, endpoint)
  else
    redis.call('ZREM', KEYS[1], endpoint)
  end
end
return claimed
