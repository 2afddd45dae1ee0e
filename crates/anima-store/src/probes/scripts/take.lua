-- Takes a permit of a circuit: see anima_core::breaker::Permits.
-- KEYS: probes by the end of their lease; the opening and how many of its probes passed.
-- ARGV: opening, probe, now, end of the lease, limit, how long the keys are kept (milliseconds).
local epoch = tonumber(ARGV[1])
local known = tonumber(redis.call('HGET', KEYS[2], 'epoch') or '0')
if epoch < known then
  return 0
end
if epoch > known then
  redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'passed', 0)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
local limit = tonumber(ARGV[5])
local passed = math.min(tonumber(redis.call('HGET', KEYS[2], 'passed') or '0'), limit - 1)
redis.call('PEXPIRE', KEYS[2], ARGV[6])
if redis.call('ZCARD', KEYS[1]) + passed >= limit then
  return 0
end
redis.call('ZADD', KEYS[1], ARGV[4], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return 1
