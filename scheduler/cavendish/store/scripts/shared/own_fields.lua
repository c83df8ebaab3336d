-- own_fields: what a new record says of its id alone, and the index of the keys among it.
-- KEYS    task, own-keys, ids of the minute: as in add.lua
local entries = {}

local function write_own(task, id, own)
  if own == '' then return end
  local fields = cjson.decode(own)
  redis.call('HSET', task, unpack(fields))
  for f = 1, #fields, 2 do
    if fields[f] == 'key' then
      entries[#entries + 1], entries[#entries + 2] = 0, fields[f + 1] .. '\0' .. id
    end
  end
end

-- `number`: its place in the minute, where it may stand twice.
local function write_restarts(task, restarts, minute, new)
  redis.call('HSET', task, 'restarts', restarts, 'number', redis.call('LLEN', minute) + new)
end

local function index_keys(own_keys)
  if #entries > 0 then redis.call('ZADD', own_keys, unpack(entries)) end
end
