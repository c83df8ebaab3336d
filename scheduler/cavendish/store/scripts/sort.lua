-- sort: move new deliveries from the inbox into the queues of their endpoints.
-- A delivery that is in its queue already keeps its place there.
-- KEYS    1 inbox  2 endpoint index, then per delivery: queue
-- ARGV    per delivery: delivery, endpoint
-- RETURNS how many were moved
local names, moved, queued, first = {}, {}, {}, {}
redis.call('ZREM', KEYS[1], '') -- takes no memory: see Connection.write_when_full
for i = 1, #ARGV, 2 do names[#names + 1] = ARGV[i] end
for n, since in ipairs(redis.call('ZMSCORE', KEYS[1], unpack(names))) do
  if since then
    local endpoint, queue = ARGV[2 * n], KEYS[2 + n]
    queued[queue] = queued[queue] or {}
    table.insert(queued[queue], since)
    table.insert(queued[queue], names[n])
    if not first[endpoint] or tonumber(since) < tonumber(first[endpoint]) then
      first[endpoint] = since
    end
    moved[#moved + 1] = names[n]
  end
end
for queue, some in pairs(queued) do redis.call('ZADD', queue, 'NX', unpack(some)) end
for endpoint, since in pairs(first) do redis.call('ZADD', KEYS[2], 'LT', since, endpoint) end
if #moved > 0 then redis.call('ZREM', KEYS[1], unpack(moved)) end
return #moved
