-- acts: what operators did to an id, in its record: a line each, the latest of them.
-- KEYS    task: as in references.lua
local most = 1500 -- bytes of all lines

local function note_act(task, line)
  local known = redis.pcall('HGET', task, 'acts') -- an error where the record is unreadable
  known = type(known) == 'string' and known or ''
  if line == '' or string.sub(known, -#line) == line then return end -- of its other webhooks
  line = known == '' and line or known .. '\n' .. line
  while #line > most do line = string.match(line, '\n(.*)$') or '' end
  redis.call('HSET', task, 'acts', line)
end
