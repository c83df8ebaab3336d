-- load_deliveries: read deliveries with the records that they announce, as one answer.
-- KEYS    per delivery: delivery, task
-- ARGV    none
-- RETURNS per key its fields, flat; an error in the place of what is unreadable
local answer = {}
for k, key in ipairs(KEYS) do answer[k] = redis.pcall('HGETALL', key) end
return answer
