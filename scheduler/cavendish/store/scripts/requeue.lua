-- requeue: put a quarantined message back into its queue, once, even if two ask for it.
-- KEYS    1 the ids in their order  2 id -> entry  3 the queue
-- ARGV    1 id  2 the message as a worker shall get it
-- RETURNS 1, or 0 if it is not there
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then
  return 0
end
redis.call('LREM', KEYS[1], 1, ARGV[1])
redis.call('LPUSH', KEYS[3], ARGV[2])
return 1
