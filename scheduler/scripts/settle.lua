-- settle: write the verdicts of one batch back; result and debts are one write, a terminal state is final.
-- KEYS    1 due  2 deadlines  3 leases  4 owed  5 counts  6 events, then per id: task, result
-- ARGV    1 now  2 token  3 retention  4 events kept, then nine per id:
--         id, state, due at, looks, absences, absent since, finished at, reason, result
-- RETURNS per id, flat: 'stale' | state, the debts now owed (separated by a space)
local now, answer = ARGV[1], {}
for i = 5, #ARGV, 9 do
  local id, state, due = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local task, result = KEYS[7 + (i - 5) / 9 * 2], KEYS[8 + (i - 5) / 9 * 2]
  local token = string.match(redis.call('HGET', KEYS[3], id) or '', '^(%S+) ')
  local verdict, debts = 'stale', {}
  if token == ARGV[2] and redis.call('HGET', task, 'state') == 'pending' then
    verdict = state
    redis.call('HSET', task, 'looks', ARGV[i + 3], 'looked_at', now, 'absences', ARGV[i + 4], 'absent_since', ARGV[i + 5])
    if state == 'pending' then
      redis.call('ZADD', KEYS[1], due, id)
    else
      redis.call('SET', result, ARGV[i + 8])
      for endpoint in string.gmatch(redis.call('HGET', task, 'webhooks') or '', '%S+') do
        debts[#debts + 1] = endpoint
        redis.call('ZADD', KEYS[4], now, endpoint .. ':' .. id)
      end
      redis.call('HSET', task, 'state', state, 'settled_at', now, 'finished_at', ARGV[i + 6], 'reason', ARGV[i + 7], 'open', #debts)
      redis.call('HINCRBY', KEYS[5], state, 1)
      redis.call('XADD', KEYS[6], 'MAXLEN', '~', ARGV[4], '*', 'id', id, 'state', state, 'at', now)
      if #debts == 0 then
        redis.call('EXPIRE', task, ARGV[3])
        redis.call('EXPIRE', result, ARGV[3])
      end
      redis.call('ZREM', KEYS[1], id)
      redis.call('ZREM', KEYS[2], id)
    end
    redis.call('HDEL', KEYS[3], id)
  end
  answer[#answer + 1] = verdict
  answer[#answer + 1] = table.concat(debts, ' ')
end
return answer
