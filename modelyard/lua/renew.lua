-- Renews leases.
--
-- KEYS: leases
-- ARGV: now in ms ('' for the server's clock), lease in ms, then claims
-- Returns the claims that are gone: settled, or taken over by somebody else.
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
redis.call('ZREM', KEYS[1], '') -- needs no memory: see claim.lua
local due, gone = now + tonumber(ARGV[2]), {}
for at = 3, #ARGV do
    if redis.call('ZSCORE', KEYS[1], ARGV[at]) then
        redis.call('ZADD', KEYS[1], due, ARGV[at])
    else
        gone[#gone + 1] = ARGV[at]
    end
end
return gone
