-- Seeds, charges or repairs a purse, and gives 1 when it did; or looks at it, and gives what was
-- spent, the number of corrections, and the calls that hold something; or gives the birth of one that
-- nobody has seeded, and after how long the ledger may be read for it; or forgets that birth.
-- KEYS: purse, holds, and for a charge its mark, for a seed the holds' amounts and the birth;
--   to be born or put off: purse, birth.
-- ARGV: 'seed', from, spent, keep ms, birth, run, its keep ms | 'charge', from, amount, mark's keep ms
--   | 'look', from | 'repair', from, corrections seen, amount | 'put off', from
--   | 'birth', from, run, now (0: this server's), how long it ripens, keep ms
local from = redis.call('HGET', KEYS[1], 'from')
if ARGV[1] == 'put off' then
    if from == ARGV[2] then return 0 end
    redis.call('DEL', KEYS[2])
    return 1
end
if ARGV[1] == 'birth' then
    if from == ARGV[2] then return {} end
    local time, now = redis.call('TIME'), tonumber(ARGV[4])
    local name = time[1] .. string.format('%06d', tonumber(time[2]))
    if now == 0 then now = tonumber(name) end
    local born = redis.call('HMGET', KEYS[2], 'name', 'since', 'run', 'seeded')
    local since = tonumber(born[2] or '0')
    -- Of another process, of a time to come, or a purse that was seeded and is gone: it was lost.
    if not born[1] or born[3] ~= ARGV[3] or born[4] == ARGV[2] or since > now then
        since, born[1] = now, name
        redis.call('DEL', KEYS[2])
        redis.call('HSET', KEYS[2], 'name', name, 'since', string.format('%.0f', now), 'run', ARGV[3])
    end
    redis.call('PEXPIRE', KEYS[2], ARGV[6])
    return {born[1], string.format('%.0f', math.max(since + tonumber(ARGV[5]) - now, 0))}
end
if ARGV[1] == 'seed' then
    if from == ARGV[2] then return 1 end
    local born = redis.call('HMGET', KEYS[4], 'name', 'run', 'seeded')
    if born[1] ~= ARGV[5] or born[2] ~= ARGV[6] or born[3] == ARGV[2] then return 0 end
    redis.call('HSET', KEYS[4], 'seeded', ARGV[2])
    redis.call('PEXPIRE', KEYS[4], ARGV[7])
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
