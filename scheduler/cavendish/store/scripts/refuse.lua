-- refuse: keep a refused submit; if there are too many, drop the oldest of whoever has most,
-- of equals the oldest of all.
-- Each write is small or takes the place of another, so all of it is done even if memory is full.
-- KEYS    1 index: id -> what is known of it  2 a key that never exists  3 id -> what was sent
--         4 how many were dropped
-- ARGV    1 id  2 what is known of it, as JSON  3 what was sent  4 how many are kept
--         5 how many bytes of what was sent are kept
-- RETURNS how many were dropped now
redis.call('DEL', KEYS[2]) -- takes no memory: see Connection.write_when_full
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])

local kept, bytes, entries, senders = 0, 0, {}, {}
local rows = redis.call('HGETALL', KEYS[1])
for row = 1, #rows, 2 do
  local read, known = pcall(cjson.decode, rows[row + 1])
  if not read or type(known) ~= 'table' then known = {} end
  local name = tostring(known.producer or '')
  -- Each Celery process of a producer has a number of its own.
  if name == '' then name = string.gsub(tostring(known.sender or ''), '^gen%d+@', '') end
  local size = redis.call('HSTRLEN', KEYS[3], rows[row])
  local sender = senders[name] or { count = 0, bytes = 0, entries = {} }
  senders[name] = sender
  kept, bytes = kept + 1, bytes + size
  sender.count, sender.bytes = sender.count + 1, sender.bytes + size
  table.insert(sender.entries, { id = rows[row], at = tonumber(known.at) or 0, size = size })
end
for _, sender in pairs(senders) do
  table.sort(sender.entries, function(a, b)
    return a.at > b.at or (a.at == b.at and a.id > b.id) -- the oldest is the last
  end)
end

local dropped = 0
while kept > tonumber(ARGV[4]) or bytes > tonumber(ARGV[5]) do
  local measure = bytes > tonumber(ARGV[5]) and 'bytes' or 'count'
  local most = nil
  for _, sender in pairs(senders) do
    local more = #sender.entries > 0 and sender[measure] - (most and most[measure] or -1) or -1
    local oldest = sender.entries[#sender.entries]
    if more > 0 or (more == 0 and oldest.at < most.entries[#most.entries].at) then most = sender end
  end
  local oldest = table.remove(most.entries)
  redis.call('HDEL', KEYS[1], oldest.id)
  redis.call('HDEL', KEYS[3], oldest.id)
  kept, bytes, dropped = kept - 1, bytes - oldest.size, dropped + 1
  most.count, most.bytes = most.count - 1, most.bytes - oldest.size
end
if dropped > 0 then redis.call('INCRBY', KEYS[4], dropped) end
return dropped
