-- matching: which ids of a minute a search wants, by what their records say.
-- WITH    references
-- KEYS    1 common, then per id: task
-- ARGV    1 the minute  2 number of the first id in it; each next one stands one place before
--         3 states, each between spaces ('': all)  4 since  5 until (seconds; of the end, or of the
--         submit while an id is pending)  6 endpoints and subscriptions that are told, joined by
--         spaces; then per field: its name, the value that is wanted
-- RETURNS numbers of the ids that match (1 is the first)
local minute, since, latest, found = tonumber(ARGV[1]), tonumber(ARGV[4]), tonumber(ARGV[5]), {}
local names = {'state', 'in', 'submitted_at', 'settled_at', 'webhooks', 'number'}
local fixed = #names
for i = 7, #ARGV, 2 do names[#names + 1] = ARGV[i] end

-- True if each of the wanted ones is told.
local function tells(webhooks)
  for wanted in string.gmatch(ARGV[6], '%S+') do
    local found = false
    for subscription in string.gmatch(webhooks or '', '%S+') do
      found = found or subscription == wanted or string.match(subscription, '^[^.]+') == wanted
    end
    if not found then return false end
  end
  return true
end

-- False for an earlier place of an id that was tracked anew.
local function counts(submitted_at, number, nth)
  if not submitted_at or math.floor(submitted_at / 60) * 60 ~= minute then return false end
  return not number or tonumber(number) == ARGV[2] - nth + 1
end

-- A field of a record. What its common parts say is looked for once, as many records name the same.
local told = {}
local function get(row, n)
  local parts = row[2] or ''
  told[parts] = told[parts] or {}
  if not row[n] and told[parts][n] == nil then
    told[parts][n] = field(names[n], nil, parts, KEYS[1]) or false
  end
  return row[n] or told[parts][n]
end

local function wanted(row, nth)
  local submitted_at, state = tonumber(get(row, 3)), row[1] or 'pending'
  if not counts(submitted_at, row[6], nth) then return false end
  if ARGV[3] ~= '' and not string.find(ARGV[3], ' ' .. state .. ' ', 1, true) then return false end
  local at = tonumber(row[4]) or submitted_at
  if at < since or at > latest or ARGV[6] ~= '' and not tells(get(row, 5)) then return false end
  for n = fixed + 1, #names do
    if (get(row, n) or '') ~= ARGV[6 + 2 * (n - fixed)] then return false end
  end
  return true
end

for nth = 1, #KEYS - 1 do
  local row = redis.pcall('HMGET', KEYS[1 + nth], unpack(names)) -- an error where it is unreadable
  if not row.err and (row[2] or row[3]) and wanted(row, nth) then found[#found + 1] = nth end
end
return found
