-- count_usage: count ids and bytes to a producer, each until an hour, unless its quota is exceeded.
-- Hours that passed are dropped, and the sums are then made anew.
-- KEYS    1 usage of the producer  2 producers
-- ARGV    1 producer  2 this hour  3 most ids (0: any)  4 most bytes (0: any); both '' for a
--         correction, which is never refused; then per usage: hour, ids, bytes
-- RETURNS 1 counted | 0 refused, ids and bytes that were counted before
local usage, hour, correction = KEYS[1], tonumber(ARGV[2]), ARGV[3] == ''
if not string.find('hash none', redis.call('TYPE', usage).ok, 1, true) then
  redis.call('DEL', usage) -- damaged: it counts anew
end
local ids, bytes, first, last = unpack(redis.call('HMGET', usage, 'ids', 'bytes', 'first', 'last'))
if correction then
  redis.call('HDEL', usage, '') -- takes no memory: see Connection.write_when_full
  if not ids then return {0, 0, 0} end
else
  redis.call('HINCRBY', usage, 'ids', 0) -- takes memory: where it is full nothing is written
end
ids, bytes, last = tonumber(ids) or 0, tonumber(bytes) or 0, tonumber(last) or hour
first = tonumber(first) or last
if first <= hour then
  local rows = redis.call('HGETALL', usage)
  ids, bytes, first = 0, 0, last
  for r = 1, #rows, 2 do
    local kind, at = string.match(rows[r], '^(%a+):(%d+)$')
    if kind and tonumber(at) <= hour then
      redis.call('HDEL', usage, rows[r])
    elseif kind then
      if kind == 'ids' then ids = ids + rows[r + 1] else bytes = bytes + rows[r + 1] end
      first = math.min(first, tonumber(at))
    end
  end
end
local more_ids, more_bytes, most_ids, most_bytes = 0, 0, tonumber(ARGV[3]), tonumber(ARGV[4])
for i = 5, #ARGV, 3 do
  if tonumber(ARGV[i]) > hour then
    more_ids, more_bytes = more_ids + ARGV[i + 1], more_bytes + ARGV[i + 2]
  end
end
local function exceeds(most, has, more)
  return most and most > 0 and more > 0 and has + more > most
end
local refused = exceeds(most_ids, ids, more_ids) or exceeds(most_bytes, bytes, more_bytes)
local answer = {refused and 0 or 1, ids, bytes}
if not refused then
  ids, bytes = ids + more_ids, bytes + more_bytes
  for i = 5, #ARGV, 3 do
    local at = tonumber(ARGV[i])
    if at > hour then
      redis.call('HINCRBY', usage, 'ids:' .. at, ARGV[i + 1])
      redis.call('HINCRBY', usage, 'bytes:' .. at, ARGV[i + 2])
      first, last = first <= hour and at or math.min(first, at), math.max(last, at)
    end
  end
end
redis.call('HSET', usage, 'ids', ids, 'bytes', bytes, 'first', first, 'last', last)
redis.call('EXPIRE', usage, (last - hour + 1) * 3600)
redis.call('ZADD', KEYS[2], 'GT', last, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', hour)
return answer
