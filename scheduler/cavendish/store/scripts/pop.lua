-- pop: take the next message of the broker's queues; if it must not be lost with the process that
-- popped it, keep a note of it in the same step.
-- That process removes the note when the message is written down elsewhere. Equal messages share
-- one note: they say the same. An old note means that the process died: that is counted.
-- KEYS    1 notes: messages by when they were popped  2 a key that never exists
--         3 SHA-1 of a message -> deaths, then the lists, in their order
-- ARGV    1 now  2 seconds after which a message that still has its note is popped again, then per
--         list: 1 if its messages are noted
-- RETURNS the message, the number of its list (0: it had a note), and the deaths counted by its
--         note; nil if there is none that is noted
local kept = {KEYS[1]}
for list = 4, #KEYS do
  if ARGV[list - 1] == '1' then kept[#kept + 1] = KEYS[list] end
end
if redis.call('EXISTS', unpack(kept)) == 0 then
  return nil -- the wait of Kombu takes the others, and costs less
end
redis.call('DEL', KEYS[2]) -- takes no memory: see Connection.write_when_full
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
