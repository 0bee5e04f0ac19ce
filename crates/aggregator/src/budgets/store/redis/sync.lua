-- One report of one holder to one cell: taken and answered in one step, since others report meanwhile.
-- It does what `Cell::sync` in crates/budget/src/lease/cell.rs does, word for word; the tests feed both
-- the same reports and compare their answers.
--
-- KEYS 1 the cell (hash), 2 the budget's marker (string), 3 reclaim times (sorted set; only if ARGV 16 >= 0)
-- ARGV 1 instance, 2 seq, 3 committed, 4 claim, 5 firm, 6 want, 7 seen, 8 members, 9 epoch, 10 version,
--      11 life, 12 limit, 13 lease_ms, 14 min_slice, 15 hold_ms, 16 reclaim_after_ms (-1 never),
--      17 settle_ms, 18 expire_at_ms, 19 young share, 20 now_ms (0: the server's clock), 21 need
-- The cell: e epoch, v version, a allocated, s spent, w wait_until_ms, n holders with something left,
--   m members, l what a loss left unknown, i:<instance> "granted committed seq epoch returned from_epoch".
-- The marker: "life since_ms reborn". All numbers are whole and below 2^53, where doubles are exact.
local H, M, Z = KEYS[1], KEYS[2], KEYS[3]
local instance = ARGV[1]
local seq, committed, claim = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local firm, want, seen = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local r_members, r_epoch, r_version = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local r_life, limit, lease = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local min_slice, hold, reclaim_after = tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[16])
local settle, expire_at, young_share = tonumber(ARGV[17]), ARGV[18], tonumber(ARGV[19])
local now, need = tonumber(ARGV[20]), tonumber(ARGV[21])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local max, min, floor = math.max, math.min, math.floor
local function text(n) return string.format('%.0f', n) end
local function minus(a, b) return max(0, a - b) end
local function numbers(packed)
  local list = {}
  for word in string.gmatch(packed, '%S+') do list[#list + 1] = tonumber(word) end
  return list
end

-- The marker: since when this store knows the budget, and whether it had forgotten it.
local life, since, reborn
local marker = redis.call('GET', M)
if marker then
  local list = numbers(marker)
  life, since, reborn = list[1], list[2], list[3]
else
  life, since, reborn = max(now, r_life + 1), now, 0
end
local foreign = r_life ~= 0 and r_life ~= life and reborn == 0
if foreign then reborn = 1 end
if foreign or not marker then
  redis.call('SET', M, text(life) .. ' ' .. text(since) .. ' ' .. reborn, 'PX', 34560000000)
end
local marker_wait = since + (reborn == 1 and hold or settle)

local had = redis.call('HMGET', H, 'e', 'v', 'a', 's', 'w', 'n', 'm', 'l', 'i:' .. instance)
local epoch, version = tonumber(had[1] or 0), tonumber(had[2] or 0)
local allocated, spent = tonumber(had[3] or 0), tonumber(had[4] or 0)
local wait, n_holding = tonumber(had[5] or 0), tonumber(had[6] or 0)
local members = tonumber(had[7] or 0)
-- seen, returned, epoch, n_before, n_returned
local lost = had[8] and numbers(had[8]) or {0, 0, 0, 0, 0}
local lost_before = had[8] or '0 0 0 0 0'
local function held_back()
  if lost[5] >= lost[4] then return 0 end
  return minus(lost[1], lost[2])
end

-- A new cell; or one that was set back to an older copy, since the holder remembers more.
local born = epoch == 0
local forgot = r_epoch > epoch or (r_epoch == epoch and r_version > version)
if born then
  epoch = max(now, r_epoch + 1)
elseif forgot then
  local held = held_back()
  lost = {allocated + held, allocated, r_epoch, members + (held > 0 and 1 or 0), 0}
  epoch = max(now, r_epoch + 1)
  wait = now + hold
end

local known = had[9]
local m = known and numbers(known) or {0, 0, 0, 0, 0, 0}
local g0, c0, q0, e0, returned, from = m[1], m[2], m[3], m[4], m[5], m[6]
local g, c, q = g0, c0, q0
local changed = {}
local function change(field, value) changed[#changed + 1] = field; changed[#changed + 1] = value end

if seq > q0 then
  q = seq
  c = max(c0, committed)

  -- A holder that outlived a loss of data, or an entry from before one.
  if e0 ~= epoch then returned, from = max(g0, c0), 0 end
  if r_epoch == epoch and from ~= 0 then
    if from == lost[3] then lost[5] = lost[5] + 1 end
    from = 0
  end
  if r_epoch ~= 0 and r_epoch ~= epoch then
    if lost[3] == 0 then wait = now + hold end
    if r_epoch > lost[3] then lost[3], lost[4], lost[5] = r_epoch, 0, 0 end
    if r_epoch == lost[3] then lost[4] = max(lost[4], r_members) end
    lost[1] = max(lost[1], seen)
    lost[2] = minus(lost[2], returned)
    returned = max(firm, c)
    lost[2] = lost[2] + returned
    from = r_epoch
  end

  -- What silent holders have not spent is taken back, eight at a time.
  if reclaim_after >= 0 then
    local n_reclaimed = 0
    for _, other in ipairs(redis.call('ZRANGE', Z, '-inf', text(now - 1), 'BYSCORE', 'LIMIT', 0, 9)) do
      if other ~= instance and n_reclaimed < 8 then
        n_reclaimed = n_reclaimed + 1
        redis.call('ZREM', Z, other)
        local o = numbers(redis.call('HGET', H, 'i:' .. other) or '0 0 0 0 0 0')
        if o[1] > o[2] then
          allocated = minus(allocated, o[1] - o[2])
          n_holding = minus(n_holding, 1)
          o[1] = o[2]
          local words = {}
          for i, n in ipairs(o) do words[i] = text(n) end
          change('i:' .. other, table.concat(words, ' '))
        end
      end
    end
  end

  -- What the holder keeps, and more where there is room.
  local target = c + want
  local kept = max(c, min(claim, target))
  g = kept
  if now >= max(wait, marker_wait) then
    local may = now < since + hold and floor(limit / young_share) or limit
    local others = minus(allocated, max(g0, c0))
    local room = minus(may, others + kept + held_back())
    local share = floor(room / (2 * max(1, n_holding)))
    local needed = minus(c + need, kept)
    if needed > room then needed = 0 end
    local most = min(room, max(share, min_slice, minus(g0, kept), needed))
    g = kept + min(target - kept, most)
  end

  spent = minus(spent + c, c0)
  allocated = minus(allocated, max(g0, c0)) + max(g, c)
  n_holding = minus(n_holding + (g > c and 1 or 0), g0 > c0 and 1 or 0)
  version = version + 1
  if not known then
    members = members + 1
    change('m', text(members))
  end
  change('v', text(version))
  change('a', text(allocated))
  change('s', text(spent))
  change('n', text(n_holding))
  change('i:' .. instance, table.concat(
    {text(g), text(c), text(q), text(epoch), text(returned), text(from)}, ' '))
  if reclaim_after >= 0 then
    if g > c then
      redis.call('ZADD', Z, text(now + lease + reclaim_after), instance)
    else
      redis.call('ZREM', Z, instance)
    end
    redis.call('PEXPIREAT', Z, expire_at)
  end
end

if text(epoch) ~= had[1] then change('e', text(epoch)) end
if text(wait) ~= had[5] then change('w', text(wait)) end
for i, n in ipairs(lost) do lost[i] = text(n) end
local lost_after = table.concat(lost, ' ')
for i, n in ipairs(lost) do lost[i] = tonumber(n) end
if lost_after ~= lost_before then change('l', lost_after) end
if #changed > 0 then redis.call('HSET', H, unpack(changed)) end
if born then redis.call('PEXPIREAT', H, expire_at) end
local held = held_back()
return {seq, seq < q and 1 or 0, g, allocated + held, spent, held, members + (held > 0 and 1 or 0),
  epoch, version, life, limit, lease, now, max(wait, marker_wait)}
