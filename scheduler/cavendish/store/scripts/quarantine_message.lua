-- quarantine_message: keep a message that no worker shall get, and drop the oldest if there are too
-- many or if they are too large together.
-- Its note and the count of its deaths are removed in the same step, so no worker gets it again.
-- KEYS    1 the ids in their order  2 a key that never exists  3 id -> entry
--         4 notes: messages by when they were popped  5 SHA-1 of a message -> deaths
-- ARGV    1 id  2 entry, as JSON  3 the message as it was popped  4 how many are kept  5 how many
--         bytes of entries
-- RETURNS how many are kept now
redis.call('DEL', KEYS[2]) -- takes no memory: see Connection.write_when_full
redis.call('ZREM', KEYS[4], ARGV[3])
redis.call('HDEL', KEYS[5], redis.sha1hex(ARGV[3]))
local ids, bytes = redis.call('LRANGE', KEYS[1], 0, -1), #ARGV[2]
for _, id in ipairs(ids) do
  bytes = bytes + redis.call('HSTRLEN', KEYS[3], id)
end
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
local kept = #ids + 1
while kept > 1 and (kept > tonumber(ARGV[4]) or bytes > tonumber(ARGV[5])) do
  local oldest = redis.call('LPOP', KEYS[1])
  bytes = bytes - redis.call('HSTRLEN', KEYS[3], oldest)
  redis.call('HDEL', KEYS[3], oldest)
  kept = kept - 1
end
return kept
