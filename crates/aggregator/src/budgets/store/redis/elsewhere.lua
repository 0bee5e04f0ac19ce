-- What cells have for all nodes but one: nothing changes by it, and nobody is noted.
-- It does what `Cell::elsewhere` in crates/budget/src/lease/cell.rs does; the fields are those of sync.lua.
--
-- KEYS the cells (hashes); ARGV 1 instance, 2 now_ms (0: the server's clock)
-- Answers spent, allocated, wait_ms of each, one after another.
local max = math.max
local function numbers(packed)
  local list = {}
  for word in string.gmatch(packed or '', '%S+') do list[#list + 1] = tonumber(word) end
  return list
end

local now = tonumber(ARGV[2])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local found = {}
for n, cell in ipairs(KEYS) do
  local had = redis.call('HMGET', cell, 's', 'a', 'w', 'l', 'i:' .. ARGV[1])
  local lost, own = numbers(had[4]), numbers(had[5])
  local granted, committed = own[1] or 0, own[2] or 0
  local held_back = 0
  if #lost == 5 and lost[5] < lost[4] then held_back = max(0, lost[1] - lost[2]) end
  found[3 * n - 2] = max(0, tonumber(had[1] or 0) - committed)
  found[3 * n - 1] = max(0, tonumber(had[2] or 0) - max(granted, committed)) + held_back
  found[3 * n] = max(0, tonumber(had[3] or 0) - now)
end
return found
