-- references: records, and the common parts that they name in their field `in`: what a record
-- does not say itself stands there. A record is pending until it has a field `state`.
-- KEYS    common   hash: part -> its fields, as JSON
--         open     hash: part -> records without expiry that refer to it
--         untils   zset: part -> until when records with expiry may refer to it: they end unseen
local decoded, fewer, latest = {}, {}, {}

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

-- Let a record without expiry refer to one part more.
local function refer(task, common, open, part, text)
  if part == '' then return end
  local list = ' ' .. (redis.call('HGET', task, 'in') or '')
  if string.find(list .. ' ', ' ' .. part .. ' ', 1, true) then return end
  redis.call('HSETNX', common, part, text)
  redis.call('HINCRBY', open, part, 1)
  redis.call('HSET', task, 'in', string.sub(list .. ' ' .. part, 2))
end

local function persist(task, open)
  if redis.call('PERSIST', task) == 0 then return end
  for part in string.gmatch(redis.call('HGET', task, 'in') or '', '%S+') do
    redis.call('HINCRBY', open, part, 1)
  end
end

-- Let a record that names these parts expire. The script ends with `count_references`.
local function expire(task, parts, now, seconds)
  local first = redis.call('TTL', task) == -1
  for part in string.gmatch(parts or '', '%S+') do
    if first then fewer[part] = (fewer[part] or 0) + 1 end
    latest[part] = math.max(latest[part] or 0, now + seconds)
  end
  redis.call('EXPIRE', task, seconds)
end

local function delete(task, result, now)
  if redis.call('TYPE', task).ok == 'hash' then
    expire(task, redis.call('HGET', task, 'in'), now, 0)
  end
  redis.call('DEL', task, result)
end

local function count_references(open, untils)
  for part, number in pairs(fewer) do
    if redis.call('HINCRBY', open, part, -number) <= 0 then redis.call('HDEL', open, part) end
  end
  for part, at in pairs(latest) do redis.call('ZADD', untils, 'GT', at, part) end
end
