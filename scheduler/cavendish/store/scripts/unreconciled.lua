-- unreconciled: which of these ended ids still owe something, so that a sweep need not read them all over the wire.
-- KEYS    the tasks
-- ARGV    none
-- RETURNS per task: the subscriptions that are neither delivered nor dead (separated by a space), '' for none, false if it is gone
local answer = {}
for i, task in ipairs(KEYS) do
  local open = ''
  if redis.call('TYPE', task).ok == 'hash' then
    local fields = redis.call('HMGET', task, 'state', 'webhooks', 'closed')
    local closed = ' ' .. (fields[3] or '') .. ' '
    for subscription in string.gmatch(fields[1] ~= 'pending' and fields[2] or '', '%S+') do
      if not string.find(closed, ' ' .. subscription .. ' ', 1, true) then open = open .. ' ' .. subscription end
    end
  elseif redis.call('EXISTS', task) == 0 then
    open = false
  end
  answer[i] = open
end
return answer
