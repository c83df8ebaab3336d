-- words: lists as records have them, words joined by spaces.
-- KEYS    none
local function count(list) return select(2, string.gsub(list or '', '%S+', '')) end

local function has(list, word)
  return string.find(' ' .. list .. ' ', ' ' .. word .. ' ', 1, true)
end

local function with(list, word) return has(list, word) and list or list .. ' ' .. word end
