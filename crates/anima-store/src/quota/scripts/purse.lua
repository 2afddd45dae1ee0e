-- Seeds, charges or repairs a purse, and gives 1 when it did; or looks at it, and gives what was
-- spent, the number of corrections, and the calls that hold something.
-- KEYS: purse, holds, and for a charge its mark, for a seed the holds' amounts.
-- ARGV: 'seed', from, spent, keep ms | 'charge', from, amount, mark's keep ms
--   | 'look', from | 'repair', from, corrections seen, amount
local from = redis.call('HGET', KEYS[1], 'from')
if ARGV[1] == 'seed' then
    if from == ARGV[2] then return 0 end
    -- What calls hold is part of what the ledger says.
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
    -- No number of corrections is one that was seen before the counter was lost.
    local mended = redis.call('TIME')[1]
    redis.call('HSET', KEYS[1], 'from', ARGV[2], 'spent', ARGV[3], 'held', '0', 'mended', mended)
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
    return 1
end
if ARGV[1] == 'charge' then
    if from ~= ARGV[2] then return 0 end
    if not redis.call('SET', KEYS[3], '1', 'NX', 'PX', ARGV[4]) then return 0 end
    redis.call('HINCRBY', KEYS[1], 'spent', ARGV[3])
    redis.call('HINCRBY', KEYS[1], 'mended', 1)
    return 1
end
if from ~= ARGV[2] then return ARGV[1] == 'look' and {} or 0 end
if ARGV[1] == 'look' then
    local seen = redis.call('HMGET', KEYS[1], 'spent', 'mended')
    local said = redis.call('ZRANGE', KEYS[2], 0, -1)
    table.insert(said, 1, seen[2] or '0')
    table.insert(said, 1, seen[1])
    return said
end
if (redis.call('HGET', KEYS[1], 'mended') or '0') ~= ARGV[3] then return 0 end
redis.call('HINCRBY', KEYS[1], 'mended', 1)
redis.call('HINCRBY', KEYS[1], 'spent', ARGV[4])
return 1
