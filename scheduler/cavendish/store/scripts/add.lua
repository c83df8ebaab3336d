-- add: begin to track ids, each once; a second submit changes nothing but adds its webhooks.
-- WITH    references words known own_fields
-- KEYS    1 due  2 deadlines  3 ids of the deadline  4 inbox  5 counts  6 producers  7 dead
--         8 quarantined  9 ended  10 common  11 common-open  12 common-until  13 own-keys
--         14 minutes  15 ids of this minute, then per id: task, result, its deliveries
-- ARGV    1 now  2 first poll at  3 deadline to look at  4 restart (0|1)  5 producer  6 fields of a
--         new record, as a JSON array  7 the common parts that it names, as a JSON object: part ->
--         text  8 part with the URLs for a known record, or ''  9 its text  10 the minute
--         11 number of webhooks, then per webhook: subscription, url ('' if it is in that part,
--         and for a registered endpoint), then per id: id, fields of its own, as a JSON array or ''
-- RETURNS per known id, flat: which of the ids it is (1 is the first), state; the others are new
local now, new, due, ids, left, known = ARGV[1], cjson.decode(ARGV[6]), {}, {}, {}, {}
redis.call('HINCRBY', KEYS[5], 'submitted', 0) -- takes memory: where it is full nothing is written
local keys = {inbox = KEYS[4], ended = KEYS[9], dead = KEYS[7], common = KEYS[10], open = KEYS[11]}
local quarantined = redis.call('EXISTS', KEYS[8]) == 1
local webhooks = {part = ARGV[8], text = ARGV[9], urls = {}}
for w = 1, ARGV[11] do webhooks[w], webhooks.urls[w] = ARGV[10 + 2 * w], ARGV[11 + 2 * w] end

local function begin(id, own, key, restarts)
  redis.call('HSET', KEYS[key], unpack(new))
  write_own(KEYS[key], id, own)
  if restarts then write_restarts(KEYS[key], restarts, KEYS[15], #ids) end
  for k = key + 1, key + 1 + #webhooks do left[#left + 1] = KEYS[k] end -- of an earlier record
  for _, name in ipairs(webhooks) do bury_no_more(keys.dead, name, id) end
  due[#due + 1], due[#due + 2], ids[#ids + 1] = ARGV[2], id, id
end

for i = 12 + 2 * #webhooks, #ARGV, 2 do
  local id, own, nth = ARGV[i], ARGV[i + 1], (i - 12) / 2 - #webhooks
  local key = 16 + nth * (2 + #webhooks)
  if quarantined and redis.call('HDEL', KEYS[8], id) == 1 then
    delete(KEYS[key], KEYS[key + 1], now)
  end
  if redis.call('EXISTS', KEYS[key]) == 0 then
    begin(id, own, key)
  else
    local one = record(id, key, #webhooks, keys.common)
    if ARGV[4] == '1' and is_over(one, keys.dead) then
      delete(KEYS[key], KEYS[key + 1], now)
      begin(id, own, key, one.restarts + 1)
    else
      subscribe(one, webhooks, now, keys)
      known[#known + 1], known[#known + 2] = nth + 1, one.state
    end
  end
end
if #ids == 0 then return known end
redis.call('DEL', unpack(left))
store_parts(cjson.decode(ARGV[7]), #ids, keys)
count_references(keys.open, KEYS[12])
redis.call('SADD', KEYS[6], ARGV[5])
redis.call('ZADD', KEYS[1], unpack(due))
index_keys(KEYS[13])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[3])
redis.call('RPUSH', KEYS[3], unpack(ids))
redis.call('ZADD', KEYS[14], ARGV[10], ARGV[10])
redis.call('RPUSH', KEYS[15], unpack(ids))
redis.call('HINCRBY', KEYS[5], 'submitted', #ids)
return known
