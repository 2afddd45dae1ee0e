-- Takes out calls that do not wait any more, all of them before anything is handed over. Gives how
-- many were in line.
-- KEYS: as `line`. ARGV: now (0: this server's), ids.
local now, were = instant(ARGV[1]), 0
for at = 2, #ARGV do
    local seat = seat_of(ARGV[at])
    if seat then
        take_out(ARGV[at], seat, nil)
        were = were + 1
    end
end
hand_off(now)
return were
