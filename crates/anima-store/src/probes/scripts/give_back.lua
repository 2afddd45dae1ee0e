-- Gives a permit back and says how many probes of its opening passed: see
-- anima_core::breaker::Permits. A permit that expired and is another's by now counts for nothing.
-- KEYS: probes by the end of their lease; the opening and how many of its probes passed.
-- ARGV: opening, probe, whether it passed, whether it ends the opening, how long the keys are kept.
local epoch = tonumber(ARGV[1])
local was_out = redis.call('ZREM', KEYS[1], ARGV[2])
local known = tonumber(redis.call('HGET', KEYS[2], 'epoch') or '0')
local passed = 0
if epoch == known then
  if ARGV[3] == '1' and was_out == 1 then
    redis.call('HINCRBY', KEYS[2], 'passed', 1)
  end
  passed = tonumber(redis.call('HGET', KEYS[2], 'passed') or '0')
end
if ARGV[4] == '1' and epoch >= known then
  redis.call('HSET', KEYS[2], 'epoch', string.format('%.0f', epoch + 1), 'passed', 0)
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
end
return passed
