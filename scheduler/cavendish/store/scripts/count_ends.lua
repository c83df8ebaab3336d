-- count_ends: count ids that ended to their group, each once; the last one completes it.
-- WITH    group
-- KEYS    1 inbox  2 ended  3 events  4 members  5 task  6 result
-- ARGV    1 now  2 group  3 seconds to keep an open group  4 seconds to keep a complete one, then
--         per id: member, state
-- RETURNS 1 these completed it | 0 it is open, or was complete before, or is not kept any more
local now, counts = ARGV[1], {}
local group = {name = ARGV[2], task = KEYS[5], result = KEYS[6], members = KEYS[4], inbox = KEYS[1],
  ended = KEYS[2], events = KEYS[3]}
redis.call('HDEL', group.members, '') -- takes no memory: see Connection.write_when_full
local begun, state = unpack(redis.call('HMGET', group.task, 'submitted_at', 'state'))
if not begun or state then return 0 end
for i = 5, #ARGV, 2 do
  local member, ended = ARGV[i], ARGV[i + 1]
  local known = redis.call('HGET', group.members, member)
  if not known then redis.call('HINCRBY', group.task, 'joined', 1) end
  if not known or known == '' then
    redis.call('HSET', group.members, member, ended)
    redis.call('HINCRBY', group.task, 'ended:' .. ended, 1)
  end
end
keep_open(group, now, ARGV[3])
return complete(group, now, ARGV[4]) and 1 or 0
