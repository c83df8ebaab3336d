-- known: what a submit does to a record that is there, and to common parts. Behind `references` and
-- `words`.
-- KEYS    inbox, ended, dead, common, open: as in add.lua; task, result, deliveries: of one id
-- A record that is there, with the keys of its id.
local function record(id, key, webhooks, common)
  local row = redis.call('HMGET', KEYS[key], 'state', 'webhooks', 'in', 'closed', 'restarts')
  return {
    id = id, task = KEYS[key], result = KEYS[key + 1],
    deliveries = {unpack(KEYS, key + 2, key + 1 + webhooks)},
    state = row[1] or 'pending', webhooks = field('webhooks', row[2], row[3], common) or '',
    closed = row[4], restarts = tonumber(row[5]) or 0,
  }
end

-- True if an id has ended and all its deliveries are delivered: it may be tracked anew.
local function is_over(one, dead)
  if one.state == 'pending' or count(one.closed) < count(one.webhooks) then return false end
  for subscription in string.gmatch(one.webhooks, '%S+') do
    if redis.call('ZSCORE', dead, subscription .. ':' .. one.id) then return false end
  end
  return true
end

-- Forget the dead letter of an earlier record of an id.
local any_dead
local function bury_no_more(dead, subscription, id)
  if any_dead == nil then any_dead = redis.call('EXISTS', dead) == 1 end
  if any_dead then redis.call('ZREM', dead, subscription .. ':' .. id) end
end

-- Store the common parts, each with its text, that so many new records name.
local function store_parts(parts, records, keys)
  for part, text in pairs(parts) do
    redis.call('HSETNX', keys.common, part, text)
    redis.call('HINCRBY', keys.open, part, records)
  end
end

-- Add webhooks that a record does not have; they are pending at once if the id has ended.
local function subscribe(one, webhooks, now, keys)
  local ended, subscribed = one.state ~= 'pending', one.webhooks
  for w, subscription in ipairs(webhooks) do
    if not has(subscribed, subscription) then
      local url = webhooks.urls[w]
      redis.call('DEL', one.deliveries[w])
      bury_no_more(keys.dead, subscription, one.id)
      subscribed = subscribed == '' and subscription or subscribed .. ' ' .. subscription
      redis.call('HSET', one.task, 'webhooks', subscribed)
      if url ~= '' then redis.call('HSET', one.task, 'to:' .. subscription, url) end
      if ended then persist(one.task, keys.open) end
      refer(one.task, keys.common, keys.open, webhooks.part, webhooks.text)
      if ended then
        redis.call('ZADD', keys.inbox, now, subscription .. ':' .. one.id)
        redis.call('ZADD', keys.ended, 'NX', now, one.id)
        redis.call('PERSIST', one.result)
      end
    end
  end
end
