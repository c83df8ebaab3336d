-- group: a group is kept as a tracked task is; its end is that of all its ids.
-- KEYS    task, result, members, inbox, ended, events: as in join_group.lua and count_ends.lua

-- Let a group whose ids do not all come be forgotten: so long after the last deadline of those that
-- came, and after the last of them ended.
local function keep_open(group, now, seconds)
  local last = math.max(now, tonumber(redis.call('HGET', group.task, 'deadline_at')))
  for _, key in ipairs({group.task, group.members}) do
    redis.call('EXPIREAT', key, math.ceil(last + seconds))
  end
end

-- Complete an open group if as many ids have ended as it has; true if so. Its webhooks become
-- pending in the same step, so there is one completion, whoever counts the last end.
local function complete(group, now, seconds)
  local row, counts, ended = redis.call('HGETALL', group.task), {}, 0
  local has = {}
  for f = 1, #row, 2 do
    has[row[f]] = row[f + 1]
    local state = string.match(row[f], '^ended:(.+)$')
    if state then counts[state], ended = tonumber(row[f + 1]), ended + row[f + 1] end
  end
  if not has.size or ended < tonumber(has.size) then return false end
  local told = cjson.encode({size = tonumber(has.size), counts = counts})
  redis.call('HSET', group.task, 'state', 'succeeded', 'settled_at', now)
  redis.call('XADD', group.events, 'MAXLEN', '~', 1000, '*', 'id', group.name, 'state', 'succeeded',
    'at', now)
  redis.call('EXPIRE', group.events, 3600)
  if has.webhooks == '' then
    redis.call('SET', group.result, told, 'EX', seconds)
    redis.call('EXPIRE', group.task, seconds)
    return true
  end
  redis.call('SET', group.result, told)
  redis.call('PERSIST', group.task)
  redis.call('ZADD', group.ended, now, group.name)
  for subscription in string.gmatch(has.webhooks, '%S+') do
    redis.call('ZADD', group.inbox, now, subscription .. ':' .. group.name)
  end
  return true
end
