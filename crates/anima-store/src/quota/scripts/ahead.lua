-- Gives how many calls of a tenant wait besides this one, how many tenants take turns, its own among
-- them, and the time between two of its turns, or -1.
-- KEYS: tenants by their turn, seats, where tenants stand. ARGV: tenant, id.
local tenant, own = ARGV[1], redis.call('HGET', KEYS[2], ARGV[2])
local known = redis.call('HMGET', KEYS[3], 'n:' .. tenant, 'h:' .. tenant, 'w:' .. tenant)
local calls, tenants = tonumber(known[1] or '0'), redis.call('ZCARD', KEYS[1])
if own and cjson.decode(own)[1] == tenant then calls = calls - 1 end
if not known[2] then tenants = tenants + 1 end
return {calls, tenants, tonumber(known[3] or '-1')}
