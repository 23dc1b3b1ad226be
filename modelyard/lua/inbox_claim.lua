-- Claims one message of a queue, whichever it is in the row.
--
-- KEYS: the queue, claims, leases
-- ARGV: now in ms ('' for the server's clock), lease in ms, the claim, the message
-- Returns 1 if it is claimed, 0 if it is not in the queue (any more).
--
-- The claim's name is new with each wish: called again after a lost reply, it is claimed already.
local queue, claims, leases = KEYS[1], KEYS[2], KEYS[3]
local claim, message = ARGV[3], ARGV[4]
redis.call('ZREM', leases, '') -- needs no memory: see claim.lua
if redis.call('HEXISTS', claims, claim) == 1 then
    return 1
end
if redis.call('LREM', queue, -1, message) == 0 then
    return 0
end
local time = redis.call('TIME')
local now = tonumber(ARGV[1]) or tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', leases, now + tonumber(ARGV[2]), claim)
redis.call('HSET', claims, claim, queue .. '\0' .. message)
return 1
