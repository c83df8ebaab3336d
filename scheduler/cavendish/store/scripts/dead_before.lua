-- dead_before: which deliveries of a lane became dead letters before a time, the newest first;
-- those that are passed over cost nothing.
-- KEYS    1 dead
-- ARGV    1 the time  2 how many to pass over  3 how many at most
-- RETURNS each delivery and when it became a dead letter, flat
local first = redis.call('ZCOUNT', KEYS[1], ARGV[1], '+inf') + ARGV[2]
return redis.call('ZREVRANGE', KEYS[1], first, first + ARGV[3] - 1, 'WITHSCORES')
