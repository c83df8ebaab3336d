-- join_group: let ids join a group, all of them or none; it begins with its first submit.
-- WITH    references words known group
-- KEYS    1 inbox  2 ended  3 events  4 dead  5 common  6 common-open  7 members  8 task  9 result,
--         then its deliveries
-- ARGV    1 now  2 group  3 size, or ''  4 the most ids of a group  5 deadline of the ids
--         6 seconds to keep an open group  7 seconds to keep a complete one  8 number of webhooks,
--         then per webhook: subscription, url ('' for a registered endpoint), then the members
-- RETURNS 'joined', how many did | 'size', that of the group | 'full', how many it would have, how
--         many it may have
local now, name, given = ARGV[1], ARGV[2], ARGV[3]
local group = {name = name, task = KEYS[8], result = KEYS[9], members = KEYS[7], inbox = KEYS[1],
  ended = KEYS[2], events = KEYS[3]}
local keys = {inbox = KEYS[1], ended = KEYS[2], dead = KEYS[4], common = KEYS[5], open = KEYS[6]}
local webhooks, joining = {part = '', text = '', urls = {}}, {}
for w = 1, ARGV[8] do webhooks[w], webhooks.urls[w] = ARGV[7 + 2 * w], ARGV[8 + 2 * w] end

local function slices(list, first, each)
  for i = first, #list, 1000 do each(unpack(list, i, math.min(i + 999, #list))) end
end

local begun, size, joined, state = unpack(
  redis.call('HMGET', group.task, 'submitted_at', 'size', 'joined', 'state'))
if given ~= '' and size and size ~= given then return {'size', tonumber(size)} end
slices(ARGV, 9 + 2 * #webhooks, function(...)
  local there = begun and redis.call('HMGET', group.members, ...) or {}
  for n, member in ipairs({...}) do
    if not there[n] then joining[#joining + 1], joining[#joining + 2] = member, '' end
  end
end)
local whole, most = (joined or 0) + #joining / 2, tonumber(size or given) or tonumber(ARGV[4])
if whole > most then return {'full', whole, most} end

redis.call('HINCRBY', group.task, 'joined', #joining / 2) -- takes memory: refused where it is full
if not begun then
  redis.call('DEL', group.members) -- of an earlier group of this name
  redis.call('HSET', group.task, 'submitted_at', now, 'deadline_at', ARGV[5], 'webhooks', '')
elseif tonumber(ARGV[5]) > tonumber(redis.call('HGET', group.task, 'deadline_at')) then
  redis.call('HSET', group.task, 'deadline_at', ARGV[5])
end
if given ~= '' then redis.call('HSET', group.task, 'size', given) end
slices(joining, 1, function(...) redis.call('HSET', group.members, ...) end)
subscribe(record(name, 8, #webhooks, keys.common), webhooks, now, keys)
if not state then
  keep_open(group, now, ARGV[6])
  complete(group, now, ARGV[7])
end
return {'joined', #joining / 2}
