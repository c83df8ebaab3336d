-- load_deliveries: read deliveries with the records that they announce, as one answer.
-- KEYS    the deliveries, then the task of each, then the result of each (all of them, or none)
-- ARGV    1 number of deliveries and tasks
-- RETURNS per delivery and per task its fields, flat, then per result its text; an error in the
--         place of what is unreadable
local answer, hashes = {}, tonumber(ARGV[1])
for k, key in ipairs(KEYS) do answer[k] = redis.pcall(k <= hashes and 'HGETALL' or 'GET', key) end
return answer
