-- Takes over claims whose lease ran out.
--
-- KEYS: claims, leases, counters
-- ARGV: now in ms ('' for the server's clock), lease in ms, what the new claims' names begin with,
--   how many at most
-- Returns for each: the new claim, and what the claims hold under it: queue, a zero byte, message.
--
-- The new name is what fences the former owner off: whatever it does to the old one finds nothing.
local time = redis.call('TIME')
local now = tonumber(ARGV[1]) or tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local name = ARGV[3] .. time[1] .. '.' .. time[2] .. ':' -- the time: see claim.lua
redis.call('ZREM', KEYS[2], '') -- needs no memory: see claim.lua
local due, said, number = now + tonumber(ARGV[2]), {}, 0
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[4])) do
    local kept = redis.call('HGET', KEYS[1], old)
    if kept then
        number = number + 1
        local claim = name .. number
        redis.call('ZADD', KEYS[2], due, claim)
        redis.call('HSET', KEYS[1], claim, kept)
        redis.call('HDEL', KEYS[1], old)
        said[#said + 1] = claim
        said[#said + 1] = kept
    end
    redis.call('ZREM', KEYS[2], old)
end
if number > 0 then
    redis.call('HINCRBY', KEYS[3], 'taken_over', number)
end
return said
