-- Gives of each tenant that waits under a tag, in the order of their turns: its name, how many of its
-- calls wait, since when the first does, and the time between two of its turns, or -1.
-- KEYS: tenants by their turn, where tenants stand. ARGV: how many tenants at most.
local said = {}
for _, head in ipairs(redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[1]) - 1)) do
    local tenant = string.sub(head, 18)
    local known = redis.call('HMGET', KEYS[2], 'n:' .. tenant, 'w:' .. tenant)
    table.insert(said, tenant)
    table.insert(said, known[1] or '0')
    table.insert(said, string.sub(head, 1, 16))
    table.insert(said, known[2] or '-1')
end
return said
