-- Seeds, charges or repairs a purse. Gives 1 when it did.
-- KEYS: purse, holds, and for a charge its mark.
-- ARGV: 'seed', from, spent, keep ms | 'charge', from, amount, mark's keep ms
--   | 'repair', from, found, spent
local from = redis.call('HGET', KEYS[1], 'from')
if ARGV[1] == 'seed' then
    if from == ARGV[2] then return 0 end
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], 'from', ARGV[2], 'spent', ARGV[3], 'held', '0')
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
    return 1
end
if ARGV[1] == 'charge' then
    if from ~= ARGV[2] then return 0 end
    if not redis.call('SET', KEYS[3], '1', 'NX', 'PX', ARGV[4]) then return 0 end
    redis.call('HINCRBY', KEYS[1], 'spent', ARGV[3])
    return 1
end
if from ~= ARGV[2] or redis.call('HGET', KEYS[1], 'spent') ~= ARGV[3] then return 0 end
if redis.call('ZCARD', KEYS[2]) > 0 then return 0 end
redis.call('HSET', KEYS[1], 'spent', ARGV[4])
return 1
