-- due_sooner: let an id be due at a time, if that is sooner; else a millisecond sooner than it was.
-- A dispatcher that has read a record does not read it again while it is due when it was: so who
-- changes what a dispatcher reads changes the due time too.
-- KEYS    due
local function due_sooner(due, at, id)
  if redis.call('ZADD', due, 'XX', 'LT', 'CH', at, id) == 0 then
    redis.call('ZADD', due, 'XX', 'INCR', -0.001, id)
  end
end
