-- drop_keys: drop those of some entries of the key index whose record is gone, or has another key.
-- KEYS    1 keys, then per entry: task
-- ARGV    the entries
-- RETURNS which of the entries were dropped (1 is the first)
local dropped, gone = {}, {}
for i, entry in ipairs(ARGV) do
  local key = redis.pcall('HGET', KEYS[1 + i], 'key')
  -- An unreadable record, for which the answer is an error, may be mended.
  if not key or (type(key) == 'string' and key ~= string.match(entry, '^(.-)%z')) then
    dropped[#dropped + 1], gone[#gone + 1] = i, entry
  end
end
if #gone > 0 then redis.call('ZREM', KEYS[1], unpack(gone)) end
return dropped
