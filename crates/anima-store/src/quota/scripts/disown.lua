-- Takes out a call that nobody waits for, and gives back at once what was claimed for it. What a call
-- that runs took is left: it has a lease that is longer than a claim, or it has ended.
-- KEYS: as `line`, the ticket. ARGV: id, now (0: this server's).
local id, now, ticket = ARGV[1], instant(ARGV[2]), KEYS[7]
local seat = seat_of(id)
if seat then take_out(id, seat, nil) end
local taken = redis.call('HGETALL', ticket)
local claimed = redis.call('HEXISTS', ticket, 'closed') == 0
for at = 1, #taken, 2 do
    local lease = taken[at + 1] == 's' and redis.call('ZSCORE', taken[at], id)
    if lease and tonumber(lease) > now + CLAIM then claimed = false end
end
for at = 1, claimed and #taken or 0, 2 do
    local counter, what = taken[at], taken[at + 1]
    if what == 's' then
        redis.call('ZREM', counter, id)
        redis.call('HDEL', ticket, counter)
    elseif counter ~= 'half' and redis.call('TYPE', counter).ok == 'string' then
        local cost, till = string.match(what, '^(%d+):(%d+)$')
        local tat = tonumber(redis.call('GET', counter))
        tat = tat - math.min(tonumber(cost), math.max(math.min(tonumber(till), tat) - now, 0))
        local kept = math.max(math.ceil((tat - now) / 1000), 0) + 60000
        redis.call('SET', counter, stamp(tat), 'PX', kept)
        redis.call('HDEL', ticket, counter)
    end
end
hand_off(now)
return 1
