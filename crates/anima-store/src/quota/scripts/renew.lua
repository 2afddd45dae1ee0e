-- Keeps what a ticket of one tag took for a further lease. Slots of a ticket that this server has
-- forgotten, or knows by its purses alone (`extend`), are taken again, whatever the limit: their
-- call runs.
-- KEYS: the ticket, then for each bound its counter, or for a purse its holds.
-- ARGV: id, now (0: this server's), lease, then for each bound 's' | 'p'
local id, now, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if now == 0 then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local expiry, kept = string.format('%.0f', now + lease), math.ceil(lease / 1000) + 60000
if redis.call('HEXISTS', KEYS[1], 'closed') == 1 then return 0 end
local known = 1 - redis.call('HEXISTS', KEYS[1], 'half')
if known == 1 then known = redis.call('EXISTS', KEYS[1]) end
for at = 4, #ARGV do
    local counter = KEYS[at - 2]
    if ARGV[at] == 's' then
        if known == 0 or redis.call('HEXISTS', KEYS[1], counter) == 1 then
            redis.call('ZADD', counter, expiry, id)
            redis.call('PEXPIRE', counter, kept)
            redis.call('HSET', KEYS[1], counter, 's')
            redis.call('HDEL', KEYS[1], 'half')
        end
    else
        redis.call('ZADD', counter, 'XX', expiry, id)
    end
end
redis.call('PEXPIRE', KEYS[1], kept + 3600000)
return known
