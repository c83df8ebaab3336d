-- deadline: when a pending record expires, which may have changed since it was read. Behind
-- `references`.
-- KEYS    task; common: as in references.lua

-- True if it has a later deadline than this one.
local function later(task, parts, common, than)
  local own = redis.call('HGET', task, 'deadline_at')
  return (tonumber(field('deadline_at', own, parts, common)) or 0) > tonumber(than)
end
