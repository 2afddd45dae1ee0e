-- Who waits under one tag, and who of them may run: the twin of `anima_core::queue::Line`. Put
-- before the scripts that change a line or give something back; times are microseconds.
-- KEYS 1-6: tenants by their turn, calls by tenant and arrival, seats, where tenants stand, nodes,
--   calls by node. No command's work grows with the number of those who wait, but by its logarithm.
-- A seat: tenant, since, deadline, node, turn, topic of the node, ticket, then for each bound
--   's', own, counter, limit | 'r', own, counter, cost, burst, period
local HEADS, LINE, SEATS, META, NODES, HOMES = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local DEPTH, LOOKED_MAX, LOOKS_MAX, CHANGES_MAX, PATIENCE = 8, 64, 512, 64, 2000000
local CLAIM, NODE_LEASE, KEPT_MS = 5000000, 5000000, 60000
local function stamp(number) return string.format('%.0f', number) end
local function instant(given)
    local now = tonumber(given)
    if now ~= 0 then return now end
    local time = redis.call('TIME')
    return tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local function number(key, field) return tonumber(redis.call('HGET', key, field) or '0') end
local function place_of(id, seat)
    return seat[1] .. ':' .. string.format('%016.0f', tonumber(seat[2])) .. ':' .. id
end
local function seat_of(id)
    local text = redis.call('HGET', SEATS, id)
    return text and cjson.decode(text)
end
local function first_of(tenant)
    local range = {'[' .. tenant .. ':', '(' .. tenant .. ';'}
    return redis.call('ZRANGEBYLEX', LINE, range[1], range[2], 'LIMIT', 0, 1)[1]
end
-- Where a tenant stands of whom calls wait.
local function tag_of(tenant)
    local head = redis.call('HGET', META, 'h:' .. tenant)
    return head and tonumber(redis.call('ZSCORE', HEADS, head) or '0')
end
-- Puts a tenant where its first call stands, or forgets it when none waits.
local function place(tenant, tag)
    local was = redis.call('HGET', META, 'h:' .. tenant)
    if was then redis.call('ZREM', HEADS, was) end
    local first = first_of(tenant)
    if first then
        local head = string.sub(first, #tenant + 2, #tenant + 17) .. ':' .. tenant
        redis.call('ZADD', HEADS, stamp(tag), head)
        redis.call('HSET', META, 'h:' .. tenant, head)
        return
    end
    redis.call('HDEL', META, 'h:' .. tenant, 'l:' .. tenant)
    redis.call('HSET', META, 'f:' .. tenant, stamp(tag))
    if redis.call('EXISTS', HEADS) == 0 then redis.call('DEL', LINE, SEATS, META, HOMES) end
end
local function push(id, seat)
    local tenant = seat[1]
    local tag = tag_of(tenant) or math.max(number(META, 'f:' .. tenant), number(META, 'v'))
    redis.call('ZADD', LINE, 0, place_of(id, seat))
    redis.call('ZADD', HOMES, 0, seat[4] .. ':' .. id)
    redis.call('HSET', SEATS, id, cjson.encode(seat))
    redis.call('HINCRBY', META, 'n:' .. tenant, 1)
    place(tenant, tag)
end
-- Notes that a tenant has a turn, and how long after the one before.
local function pace(tenant, now)
    local last, mean = redis.call('HGET', META, 'l:' .. tenant), nil
    if last then
        local gap = math.max(now - tonumber(last), 0)
        mean = redis.call('HGET', META, 'w:' .. tenant)
        mean = mean and math.floor((tonumber(mean) * 7 + gap) / 8) or gap
        redis.call('HSET', META, 'w:' .. tenant, stamp(mean))
    end
    redis.call('HSET', META, 'l:' .. tenant, stamp(now))
end
-- Takes a call out. `served`: when its turn came, if it did.
local function take_out(id, seat, served)
    local tenant = seat[1]
    local tag = tag_of(tenant) or 0
    redis.call('ZREM', LINE, place_of(id, seat))
    redis.call('ZREM', HOMES, seat[4] .. ':' .. id)
    redis.call('HDEL', SEATS, id)
    redis.call('HDEL', META, 'p:' .. id)
    redis.call('HINCRBY', META, 'n:' .. tenant, -1)
    if served then
        redis.call('HSET', META, 'v', stamp(math.max(number(META, 'v'), tag)))
        tag = tag + tonumber(seat[5])
        pace(tenant, served)
    end
    place(tenant, tag)
end
local function hear(node, now)
    redis.call('ZADD', NODES, stamp(now + NODE_LEASE), node)
    redis.call('PEXPIRE', NODES, KEPT_MS)
end
local function is_dead(node, now)
    return tonumber(redis.call('ZSCORE', NODES, node) or '0') <= now
end
-- Takes out some of those whose node is dead. Gives false when more of them may be left.
local function bury(now)
    local dead, left = redis.call('ZRANGEBYSCORE', NODES, '-inf', stamp(now)), CHANGES_MAX
    table.sort(dead)
    for _, node in ipairs(dead) do
        local homes = redis.call(
            'ZRANGEBYLEX', HOMES, '[' .. node .. ':', '(' .. node .. ';', 'LIMIT', 0, left)
        for _, home in ipairs(homes) do
            local id = string.sub(home, #node + 2)
            local seat = seat_of(id)
            if seat then take_out(id, seat, nil) else redis.call('ZREM', HOMES, home) end
        end
        left = left - #homes
        if left == 0 then return false end
        redis.call('ZREM', NODES, node)
    end
    return true
end
-- Whether a call may run; when its rates let it, if that is all; whether a limit is in the way that
-- is not its key's own, which `short` is told; and what it would take.
local function attempt(id, seat, now, short)
    local runs, wait, timed, shared, writes, at = true, 0, true, false, {}, 8
    while at <= #seat do
        local own, counter, fits, needs = seat[at + 1] == '1', seat[at + 2], false, 0
        local again = redis.call('HEXISTS', seat[7], counter) == 1
        if seat[at] == 's' then
            redis.call('ZREMRANGEBYSCORE', counter, '-inf', stamp(now))
            again = again and redis.call('ZSCORE', counter, id)
            fits = again or redis.call('ZCARD', counter) < tonumber(seat[at + 3])
            if fits then table.insert(writes, {'s', counter}) else timed = false end
            at = at + 4
        else
            local cost, burst = tonumber(seat[at + 3]), tonumber(seat[at + 4])
            local furthest = now + math.max(burst, 0) + tonumber(seat[at + 5])
            local state = tonumber(redis.call('GET', counter) or '0')
            local after = math.min(math.max(state, now), furthest) + cost
            fits = again or (cost <= burst and after - burst - now <= 0)
            needs = cost
            if not fits and cost > burst then timed = false end
            if not fits then wait = math.max(wait, after - burst - now) end
            if fits and not again then table.insert(writes, {'r', counter, after, cost}) end
            at = at + 6
        end
        if not fits then
            runs = false
            if not own then
                shared, short[counter] = true, math.max(short[counter] or 0, needs)
            end
        end
    end
    return runs, timed and wait or nil, shared, writes
end
local function take(id, seat, writes, now)
    if #writes > 0 then redis.call('HDEL', seat[7], 'closed') end
    for _, write in ipairs(writes) do
        local counter = write[2]
        if write[1] == 's' then
            -- One that runs already keeps its lease.
            local lease = tonumber(redis.call('ZSCORE', counter, id) or '0')
            redis.call('ZADD', counter, stamp(math.max(lease, now + CLAIM)), id)
            redis.call('PEXPIRE', counter, 120000)
            redis.call('HSET', seat[7], counter, 's')
        else
            local ahead = math.ceil((write[3] - now) / 1000) + 60000
            redis.call('SET', counter, stamp(write[3]), 'PX', ahead)
            redis.call('HSET', seat[7], counter, stamp(write[4]) .. ':' .. stamp(write[3]))
        end
    end
    if #writes > 0 then redis.call('PEXPIRE', seat[7], 3720000) end
end
-- One look at the line: 'called' or 'removed' when it changed, else nothing; when to look again; and
-- at how many it looked. Those that only their own key's limits stop do not count as tried.
local function step(now, short)
    local next, blocked, looks = nil, 0, 0
    for _, head in ipairs(redis.call('ZRANGE', HEADS, 0, LOOKED_MAX - 1)) do
        looks = looks + 1
        local tenant = string.sub(head, 18)
        local first = first_of(tenant)
        local id = first and string.sub(first, #tenant + 19)
        local seat = id and seat_of(id)
        if not seat then
            -- A part of the line was lost: it is built again.
            redis.call('DEL', HEADS, LINE, SEATS, META, HOMES)
            return nil, nil, looks
        end
        if tonumber(seat[3]) <= now or is_dead(seat[4], now) then
            take_out(id, seat, nil)
            return 'removed', nil, looks
        end
        local runs, wait, shared, writes = attempt(id, seat, now, short)
        if runs then
            take(id, seat, writes, now)
            take_out(id, seat, now)
            redis.call('PUBLISH', seat[6], id .. ' ' .. string.match(HEADS, '{(.-)}'))
            return 'called', nil, looks
        end
        if wait then next = math.min(next or wait, wait) end
        redis.call('HSETNX', META, 'p:' .. id, stamp(now))
        if shared then
            blocked = blocked + 1
            if blocked >= DEPTH or now - number(META, 'p:' .. id) >= PATIENCE then break end
        end
    end
    return nil, next, looks
end
-- Notes what those whose turn it is wait for and share with others, and when that was found.
local function note_short(short, now)
    local names = {}
    for counter, needs in pairs(short) do
        table.insert(names, counter .. '\t' .. stamp(needs))
    end
    if #names == 0 then return redis.call('HDEL', META, 'short') end
    redis.call('HSET', META, 'short', stamp(now) .. '\n' .. table.concat(names, '\n') .. '\n')
end
-- Takes what is there for those whose turn it is. Gives after how long to look again, or -1.
local function hand_off(now)
    local changes, looks, is_over, changed, next, looked = 0, 0, bury(now), nil, nil, 0
    local short
    repeat
        short = {}
        changed, next, looked = step(now, short)
        changes, looks = changes + 1, looks + looked
    until not changed or changes >= CHANGES_MAX or looks >= LOOKS_MAX
    if not changed then note_short(short, now) end
    if changed or not is_over then next = 0 end
    for _, key in ipairs({HEADS, LINE, SEATS, META, HOMES}) do redis.call('PEXPIRE', key, KEPT_MS) end
    return next or -1
end
