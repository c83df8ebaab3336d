-- forget_lane: delete the totals of a lane in which nothing is kept; its shared states expire.
-- KEYS    the keys that hold something as long as anything is kept, then those that are deleted
-- ARGV    1 how many of the first kind
-- RETURNS 1 nothing is kept | 0 something is, and nothing was deleted
local holding = tonumber(ARGV[1])
if redis.call('EXISTS', unpack(KEYS, 1, holding)) > 0 then return 0 end
redis.call('DEL', unpack(KEYS, holding + 1))
return 1
