-- Closes a ticket of one tag with what was really used, and hands over what it gives back. Gives 1,
-- then for each purse whether the ticket knew of it, for only then it was charged; or 0 when there
-- is none, because it was closed before.
-- KEYS: as `line`, then as for `admit`. ARGV: id, now (0: this server's), 1 when its call may be
--   told of again, then for each bound 's' | 'r', actual cost | 'p', actual units
local id, now, ticket = ARGV[1], instant(ARGV[2]), KEYS[7]
if redis.call('EXISTS', ticket) == 0 or redis.call('HEXISTS', ticket, 'closed') == 1 then
    return {0}
end
local out, key, at = {1}, 8, 4
while at <= #ARGV do
    local kind, counter = ARGV[at], KEYS[key]
    local taken = redis.call('HGET', ticket, counter)
    if kind == 's' then
        if taken then redis.call('ZREM', counter, id) end
        at, key = at + 1, key + 1
    elseif kind == 'r' then
        if taken then
            local reserved, till = string.match(taken, '^(%d+):(%d+)$')
            reserved, till = tonumber(reserved), tonumber(till)
            local tat, actual = tonumber(redis.call('GET', counter) or '0'), tonumber(ARGV[at + 1])
            if actual > reserved then
                tat = math.max(tat, now) + actual - reserved
            elseif actual < reserved then
                local ahead = math.max(math.min(till, tat) - now, 0)
                tat = tat - math.min(reserved - actual, ahead)
            end
            local kept = math.max(math.ceil((tat - now) / 1000), 0) + 60000
            redis.call('SET', counter, string.format('%.0f', tat), 'PX', kept)
        end
        at, key = at + 2, key + 1
    else
        table.insert(out, taken and 1 or 0)
        if taken then
            local amount, from = string.match(taken, '^(%d+):(%d+)$')
            if redis.call('HGET', counter, 'from') == from then
                -- A hold that expired was counted as spent; what is known now stands instead.
                local part = 'spent'
                if redis.call('ZREM', KEYS[key + 1], id) == 1 then part = 'held' end
                redis.call('HDEL', KEYS[key + 2], id)
                if amount ~= '0' then
                    redis.call('HINCRBY', counter, part, '-' .. amount)
                end
                redis.call('HINCRBY', counter, 'spent', ARGV[at + 1])
            end
        end
        at, key = at + 2, key + 3
    end
end
redis.call('DEL', ticket)
if ARGV[3] == '0' then
    -- A renewal that is on its way must not take its slots again.
    redis.call('HSET', ticket, 'closed', '1')
    redis.call('PEXPIRE', ticket, 60000)
end
if redis.call('EXISTS', HEADS) == 1 then hand_off(now) end
return out
