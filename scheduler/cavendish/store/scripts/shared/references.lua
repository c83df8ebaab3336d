-- references: records, and the common parts that they name in their field `common`: what a record
-- does not say itself stands there. A record is pending until it has a field `state`.
-- KEYS    common   hash: part -> its fields, as JSON
--         open     hash: part -> records without expiry that refer to it
--         untils   zset: part -> until when records with expiry may refer to it: they end unseen
local decoded = {}

-- A field of a record, from what it says itself or from its common parts; nil if it has none.
local function field(name, own, parts, common)
  if own then return own end
  for part in string.gmatch(parts or '', '%S+') do
    if not decoded[part] then
      local ok, fields = pcall(cjson.decode, redis.call('HGET', common, part) or '')
      decoded[part] = ok and type(fields) == 'table' and fields or {}
    end
    if decoded[part][name] then return decoded[part][name] end
  end
end

local function count_references(task, open, by)
  for part in string.gmatch(redis.call('HGET', task, 'common') or '', '%S+') do
    if redis.call('HINCRBY', open, part, by) <= 0 then redis.call('HDEL', open, part) end
  end
end

-- Let a record without expiry refer to one part more.
local function refer(task, common, open, part, text)
  if part == '' then return end
  local list = ' ' .. (redis.call('HGET', task, 'common') or '')
  if string.find(list .. ' ', ' ' .. part .. ' ', 1, true) then return end
  redis.call('HSETNX', common, part, text)
  redis.call('HINCRBY', open, part, 1)
  redis.call('HSET', task, 'common', string.sub(list .. ' ' .. part, 2))
end

local function persist(task, open)
  if redis.call('PERSIST', task) == 1 then count_references(task, open, 1) end
end

local function expire(task, open, untils, now, seconds)
  if redis.call('PERSIST', task) == 0 then count_references(task, open, -1) end
  for part in string.gmatch(redis.call('HGET', task, 'common') or '', '%S+') do
    redis.call('ZADD', untils, 'GT', now + seconds, part)
  end
  redis.call('EXPIRE', task, seconds)
end

local function delete(task, result, open, untils, now)
  if redis.call('TYPE', task).ok == 'hash' then expire(task, open, untils, now, 0) end
  redis.call('DEL', task, result)
end
