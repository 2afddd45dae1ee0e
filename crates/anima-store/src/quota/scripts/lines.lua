-- Notes that calls wait in a line, or gives the lines in which some do.
-- KEYS: lines by when they are taken for empty, milliseconds.
-- ARGV: for how long a line is noted, milliseconds, and the line; or how many are given at most.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
if not ARGV[2] then return redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[1]) - 1) end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[1])), ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {}
