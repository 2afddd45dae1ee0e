-- Sets what a ticket holds of the purses of one tag: of all of them, or of none. The arithmetic is
-- that of `anima_core::quota::book::more`. A ticket that was closed holds nothing more; of one that
-- this server has forgotten only a half is known then, so that a renewal takes its slots again.
-- KEYS: the ticket; then for each purse its sum, its holds and their amounts.
-- ARGV: id, now (0: this server's), lease, then for each purse
--   shadow, limit, units to hold, from, keep ms
-- Gives: taken, now, then for each purse what the ticket held and what was spent and held.
local id, now, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if now == 0 then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local out, writes, pass, key, at = {0, now}, {}, true, 2, 4
local function stamp(number) return string.format('%.0f', number) end
local closed = redis.call('HEXISTS', KEYS[1], 'closed') == 1
while at <= #ARGV do
    local counter, shadow, from = KEYS[key], ARGV[at] == '1', ARGV[at + 3]
    local limit, units = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local held, state, fits = 0, -1, false
    local amount, span = string.match(redis.call('HGET', KEYS[1], counter) or '', '^(%d+):(%d+)$')
    if span == from then held = tonumber(amount) end
    local purse = redis.call('HMGET', counter, 'from', 'spent', 'held')
    if purse[1] == from then
        state = tonumber(purse[2]) + tonumber(purse[3])
        fits = units <= held or state + units - held <= limit
        if fits and units ~= held then
            table.insert(writes, {counter, KEYS[key + 1], KEYS[key + 2], held, units, from,
                ARGV[at + 4]})
        end
    else
        shadow = false
    end
    pass = pass and (fits or shadow)
    table.insert(out, held)
    table.insert(out, state)
    at, key = at + 5, key + 3
end
if closed then out[1] = 1 end
if closed or not pass then return out end
out[1] = 1
if #writes > 0 and redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('HSET', KEYS[1], 'half', '1')
end
local expiry, kept = stamp(now + lease), math.ceil(lease / 1000) + 60000
for _, write in ipairs(writes) do
    local counter, holds, amounts, held, units = write[1], write[2], write[3], write[4], write[5]
    -- A hold that expired was counted as spent.
    local part = 'spent'
    if redis.call('ZSCORE', holds, id) then part = 'held' end
    if held > 0 then redis.call('HINCRBY', counter, part, stamp(-held)) end
    redis.call('HINCRBY', counter, 'held', stamp(units))
    redis.call('ZADD', holds, expiry, id)
    redis.call('HSET', amounts, id, stamp(units))
    for _, one in ipairs({counter, holds, amounts}) do redis.call('PEXPIRE', one, write[7]) end
    redis.call('HSET', KEYS[1], counter, stamp(units) .. ':' .. write[6])
end
if #writes > 0 then redis.call('PEXPIRE', KEYS[1], kept + 3600000) end
return out
