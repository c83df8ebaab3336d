-- pop: the next message of the broker's queues; where it must not be lost with whoever popped it, a note of it in the same step.
-- Whoever popped it removes the note once it is written down elsewhere. Messages that are alike share one: they say the same.
-- A note that is old tells that whoever popped the message died with it: that is counted.
-- KEYS    1 the notes: messages by when they were popped  2 a key that never is  3 message -> deaths  4.. the lists, in their order
-- ARGV    1 now  2 seconds after which a message is popped restart whose note is still there, then per list: 1 if it is noted
-- RETURNS the message, which list it was in (0: it was noted), and at how many deaths it was noted, or nil
if redis.call('EXISTS', unpack(KEYS)) == 0 then
  return nil
end
redis.call('DEL', KEYS[2]) -- see Connection.write_when_full: takes no memory, so that what follows may
local list, noted = 0, '1'
local message = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1] - ARGV[2], 'LIMIT', 0, 1)[1]
local deaths = message and redis.call('HINCRBY', KEYS[3], redis.sha1hex(message), 1) or 0
while not message and KEYS[list + 4] do
  list = list + 1
  message, noted = redis.call('RPOP', KEYS[list + 3]), ARGV[list + 2]
end
if not message then
  return nil
end
if noted == '1' then
  redis.call('ZADD', KEYS[1], ARGV[1], message)
end
return {message, list, deaths}
