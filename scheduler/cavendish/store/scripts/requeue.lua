-- requeue: put a quarantined message back into its queue, once, even if two ask for it.
-- KEYS    1, 2 the ids in their order, in two lists  3 id -> entry  4 the queue
-- ARGV    1 id  2 the message as a worker shall get it
-- RETURNS 1, or 0 if it is not there
if redis.call('HDEL', KEYS[3], ARGV[1]) == 0 then
  return 0
end
redis.call('LREM', KEYS[1], 1, ARGV[1])
redis.call('LREM', KEYS[2], 1, ARGV[1])
redis.call('LPUSH', KEYS[4], ARGV[2])
return 1
