-- queue_lengths: how many ids are due, and how many deliveries wait in queues; writes nothing.
-- KEYS    so many due sets, then queues and sets of retries
-- ARGV    1 now  2 how many of the keys are due sets
-- RETURNS a number for each key: members due by now of a due set, all members of the others
local numbers = {}
for i, key in ipairs(KEYS) do
  if i <= tonumber(ARGV[2]) then
    numbers[i] = redis.call('ZCOUNT', key, '-inf', ARGV[1])
  else
    numbers[i] = redis.call('ZCARD', key)
  end
end
return numbers
