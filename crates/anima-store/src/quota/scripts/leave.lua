-- Takes out a call that does not wait any more. Gives 1, or 0 when it was not in line.
-- KEYS: as `line`. ARGV: id, now (0: this server's).
local id, now = ARGV[1], instant(ARGV[2])
local seat = seat_of(id)
if seat then take_out(id, seat, nil) end
hand_off(now)
return seat and 1 or 0
