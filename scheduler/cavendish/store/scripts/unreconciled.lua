-- unreconciled: which ended tasks still have open deliveries; spares reading them over the wire.
-- KEYS    the tasks
-- ARGV    none
-- RETURNS per task: the subscriptions that are neither delivered nor dead (joined by spaces), ''
--         for none, false if the task is gone
local answer = {}
for i, task in ipairs(KEYS) do
  local open = ''
  if redis.call('TYPE', task).ok == 'hash' then
    local state, webhooks, closed = unpack(redis.call('HMGET', task, 'state', 'webhooks', 'closed'))
    closed = ' ' .. (closed or '') .. ' '
    for subscription in string.gmatch(state and webhooks or '', '%S+') do
      local found = string.find(closed, ' ' .. subscription .. ' ', 1, true)
      if not found then open = open .. ' ' .. subscription end
    end
  elseif redis.call('EXISTS', task) == 0 then
    open = false
  end
  answer[i] = open
end
return answer
