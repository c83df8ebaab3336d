-- erase_common: delete common parts that no record names, unless one has come to name them.
-- KEYS    1 common  2 common-open  3 common-until
-- ARGV    per part: its name, until when records with expiry were known to name it (0: none)
-- RETURNS how many were deleted
local erased = 0
redis.call('HDEL', KEYS[1], '') -- takes no memory: see Connection.write_when_full
for i = 1, #ARGV, 2 do
  local part, seen = ARGV[i], tonumber(ARGV[i + 1])
  local until_ = tonumber(redis.call('ZSCORE', KEYS[3], part) or 0)
  if until_ == seen and not redis.call('HGET', KEYS[2], part) then
    redis.call('HDEL', KEYS[1], part)
    redis.call('ZREM', KEYS[3], part)
    erased = erased + 1
  end
end
return erased
