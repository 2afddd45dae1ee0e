-- Judges every bound of one tag, then takes all of them or none. The arithmetic is that of
-- `anima_core::quota::book`; times are microseconds.
-- KEYS: the ticket; then for each bound its counter, and for a purse its holds and their amounts;
--   for 2 the tenants that wait under the tag; for 3 and 4 where they stand, and their calls.
-- ARGV: id, now (0: this server's), lease, 1 to take, 2 to take unless others wait, 0 to look, 3 or
--   4 to take or to look at what nobody waits for, then for each bound
--   's', shadow, limit | 'r', shadow, cost, burst, period | 'p', shadow, limit, units, from, keep ms
-- Gives: taken (2: others wait, and no more), now, then for each bound whether it had been taken
--   before, or 2 and after how long it comes when others wait for it, and its state before.
local id, now, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if now == 0 then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
if ARGV[4] == '2' and redis.call('EXISTS', KEYS[#KEYS]) == 1 then return {2, now} end
local out, writes, pass, key, at = {0, now}, {}, true, 2, 5
local function stamp(number) return string.format('%.0f', number) end
-- What `line.lua` found to be in the way of those whose turn it is. Nodes whose calls wait look
-- every 250 ms: after a second (`SHORT_US` of the twin) nobody is left who would say otherwise.
local short, waiting = nil, 0
if ARGV[4] == '3' or ARGV[4] == '4' then
    short = redis.call('HGET', KEYS[#KEYS - 1], 'short')
    local since = short and tonumber(string.match(short, '^%d+'))
    if short and (not since or now - since > 1000000) then short = nil end
    if short then waiting = redis.call('ZCARD', KEYS[#KEYS]) end
end
local function late_by(counter, used, cost, burst)
    local _, to = string.find(short, '\n' .. counter .. '\t', 1, true)
    local first = to and tonumber(string.match(short, '^%d+', to + 1))
    return first and math.max(used + first + cost * waiting - burst, 1)
end
while at <= #ARGV do
    local kind, shadow, counter = ARGV[at], ARGV[at + 1] == '1', KEYS[key]
    local again = redis.call('HEXISTS', KEYS[1], counter) == 1
    local fits, state, late
    if kind == 's' then
        redis.call('ZREMRANGEBYSCORE', counter, '-inf', stamp(now))
        state = redis.call('ZCARD', counter)
        -- One whose lease is over may be another's by now.
        again = again and redis.call('ZSCORE', counter, id)
        late = short and not again and not shadow and late_by(counter, 0, 0, 0)
        fits = again or (not late and state < tonumber(ARGV[at + 2]))
        if fits then table.insert(writes, {'s', counter}) end
        at, key = at + 3, key + 1
    elseif kind == 'r' then
        state = tonumber(redis.call('GET', counter) or '0')
        local cost, burst = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
        local furthest = now + math.max(burst, 0) + tonumber(ARGV[at + 4])
        local after = math.min(math.max(state, now), furthest) + cost
        late = short and not again and not shadow
            and late_by(counter, after - cost - now, cost, burst)
        fits = again or (not late and cost <= burst and after - burst - now <= 0)
        if fits and not again then
            table.insert(writes, {'r', counter, after, cost})
        end
        at, key = at + 5, key + 1
    else
        local limit, units, from = tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4]
        local purse = redis.call('HMGET', counter, 'from', 'spent', 'held')
        if purse[1] == from then
            local gone = redis.call(
                'ZRANGEBYSCORE', KEYS[key + 1], '-inf', stamp(now), 'LIMIT', 0, 64)
            for _, hold in ipairs(gone) do
                local amount = redis.call('HGET', KEYS[key + 2], hold) or '0'
                redis.call('ZREM', KEYS[key + 1], hold)
                redis.call('HDEL', KEYS[key + 2], hold)
                if amount ~= '0' then
                    redis.call('HINCRBY', counter, 'held', '-' .. amount)
                    redis.call('HINCRBY', counter, 'spent', amount)
                end
            end
            state = tonumber(purse[2]) + tonumber(purse[3])
            fits = again or state + tonumber(units) <= limit
            if fits and not again then
                table.insert(writes, {'p', counter, units, from, KEYS[key + 1], KEYS[key + 2],
                    ARGV[at + 5]})
            end
        else
            state, fits, shadow = -1, false, false
        end
        at, key = at + 6, key + 3
    end
    pass = pass and (fits or shadow)
    table.insert(out, late and 2 + late or again and 1 or 0)
    table.insert(out, state)
end
if not pass or ARGV[4] == '0' or ARGV[4] == '4' then return out end
out[1] = 1
local expiry, kept = stamp(now + lease), math.ceil(lease / 1000) + 60000
-- What was given back may be asked for again.
if #writes > 0 then redis.call('HDEL', KEYS[1], 'closed', 'half') end
for _, write in ipairs(writes) do
    local kind, counter = write[1], write[2]
    if kind == 's' then
        redis.call('ZADD', counter, expiry, id)
        redis.call('PEXPIRE', counter, kept)
        redis.call('HSET', KEYS[1], counter, 's')
    elseif kind == 'r' then
        local ahead = math.ceil((write[3] - now) / 1000) + 60000
        redis.call('SET', counter, stamp(write[3]), 'PX', ahead)
        redis.call('HSET', KEYS[1], counter, stamp(write[4]) .. ':' .. stamp(write[3]))
    else
        redis.call('HINCRBY', counter, 'held', write[3])
        redis.call('ZADD', write[5], expiry, id)
        redis.call('HSET', write[6], id, write[3])
        for _, part in ipairs({counter, write[5], write[6]}) do
            redis.call('PEXPIRE', part, write[7])
        end
        redis.call('HSET', KEYS[1], counter, write[3] .. ':' .. write[4])
    end
end
if #writes > 0 then redis.call('PEXPIRE', KEYS[1], kept + 3600000) end
return out
