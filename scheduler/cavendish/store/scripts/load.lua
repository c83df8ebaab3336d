-- load: read records with their leases, whatever their number, as one answer.
-- KEYS    1 leases, then per id: task, then per id: result (all of them, or none)
-- ARGV    the ids
-- RETURNS the lease of each id, then per id its fields, flat, then per id its result; an error in
--         the place of what is unreadable
local answer = {redis.pcall('HMGET', KEYS[1], unpack(ARGV))}
for k = 2, #KEYS do
  answer[k] = redis.pcall(k < 2 + #ARGV and 'HGETALL' or 'GET', KEYS[k])
end
return answer
