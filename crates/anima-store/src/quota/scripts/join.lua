-- Lets a call wait, or gives it what it asks for. One that waits already asks for this now.
-- KEYS: as `line`, the ticket, then for each bound its counter.
-- ARGV: id, now (0: this server's), within, since (0: now), tenant, node, turn, the node's topic,
--   how many of the tenant may wait, how many may be ahead, then for each bound
--   's', own, limit | 'r', own, cost, burst, period
-- Gives: 0 called, 1 waits, 2 too many wait, 3 in vain; how many of the tenant were ahead; since
-- when it waits; after how long to look again, or -1.
local id, now, tenant, node = ARGV[1], instant(ARGV[2]), ARGV[5], ARGV[6]
hear(node, now)
bury(now)
local seat, ahead = seat_of(id), 0
if not seat then
    ahead = number(META, 'n:' .. tenant)
    local since = ARGV[4]
    -- One that comes back was let in before, and may have been called since.
    if since == '0' then
        if ahead >= tonumber(ARGV[9]) then return {2, ahead, now, -1} end
        if ahead > tonumber(ARGV[10]) then return {3, ahead, now, -1} end
        since = stamp(now)
    end
    local deadline = stamp(now + tonumber(ARGV[3]))
    seat = {tenant, since, deadline, node, ARGV[7], ARGV[8], KEYS[7]}
    push(id, seat)
end
for at = #seat, 8, -1 do seat[at] = nil end
local at, key = 11, 8
while at <= #ARGV do
    local parts = 2
    if ARGV[at] == 'r' then parts = 4 end
    table.insert(seat, ARGV[at])
    table.insert(seat, ARGV[at + 1])
    table.insert(seat, KEYS[key])
    for part = 2, parts do table.insert(seat, ARGV[at + part]) end
    at, key = at + parts + 1, key + 1
end
redis.call('HSET', SEATS, id, cjson.encode(seat))
local since = tonumber(seat[2])
local next = hand_off(now)
return {redis.call('HEXISTS', SEATS, id), ahead, since, next}
