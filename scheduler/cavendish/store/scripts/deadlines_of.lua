-- deadlines_of: which of some ids are pending, and when their deadlines pass; spares reading the
-- many that have ended over the wire.
-- WITH    references
-- KEYS    1 common, then the tasks
-- ARGV    none
-- RETURNS per task: false if it has ended or is gone, else its deadline, '' if it is unreadable
local answer = {}
for i = 2, #KEYS do
  local row = redis.pcall('HMGET', KEYS[i], 'state', 'deadline_at', 'in')
  local found = false
  if row.err then
    found = ''
  elseif not row[1] and (row[2] or row[3]) then
    found = field('deadline_at', row[2], row[3], KEYS[1]) or ''
  end
  answer[i - 1] = found
end
return answer
