-- Begins a budget's life unless it has one, and keeps it from expiring.
-- KEYS 1 the budget's marker; ARGV 1 now_ms (0: the server's clock), 2 how long it is kept, milliseconds
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local text = string.format('%.0f', now)
if not redis.call('SET', KEYS[1], text .. ' ' .. text .. ' 0', 'NX', 'PX', ARGV[2]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 'OK'
