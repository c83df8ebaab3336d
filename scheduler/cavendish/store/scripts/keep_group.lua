-- keep_group: keep a group that is not complete for its ids, which have a later deadline now.
-- WITH    group
-- KEYS    1 task  2 members
-- ARGV    1 now  2 deadline of the ids  3 seconds to keep an open group
-- RETURNS 1 it is kept | 0 it is complete, or was not kept any more
local group = {task = KEYS[1], members = KEYS[2]}
redis.call('HDEL', group.members, '') -- takes no memory: see Connection.write_when_full
local deadline_at, state = unpack(redis.call('HMGET', group.task, 'deadline_at', 'state'))
if not deadline_at or state then return 0 end
if tonumber(ARGV[2]) > tonumber(deadline_at) then
  redis.call('HSET', group.task, 'deadline_at', ARGV[2])
end
keep_open(group, ARGV[1], ARGV[3])
return 1
