-- Says that a node lives. Gives after how long to look again, or -1, and the places, from 1, of
-- those of its calls that are not in line.
-- KEYS: as `line`. ARGV: node, now (0: this server's), ids.
local now = instant(ARGV[2])
hear(ARGV[1], now)
local said = {hand_off(now)}
for at = 3, #ARGV do
    if redis.call('HEXISTS', SEATS, ARGV[at]) == 0 then table.insert(said, at - 2) end
end
return said
