-- Puts the request of a dead letter onto a queue again, and removes the letter.
--
-- KEYS: dead letters, dead letters by age, counters, the request's result, cancelled, the queue,
--   its wake-up list, the queues behind it
-- ARGV: id, when it died (the same request may have died again since), most messages in each of these
--   queues (0: no bound), the message, '1' to only say what would be done
-- Returns 1 if it was done, 0 if the letter is gone, -1 if one of the queues has no room, -3 if another
--   letter is in its place, or the status of the outcome that the request has had since.
--
-- Of all writes the message is the first: a server that refuses to be written to refuses that one.
local letters, by_age, result, queue, wake = KEYS[1], KEYS[2], KEYS[4], KEYS[6], KEYS[7]
local id, most, dry = ARGV[1], tonumber(ARGV[3]), ARGV[5] == '1'

if redis.call('HEXISTS', letters, id) == 0 then
    return 0
end
local died_at = redis.call('ZSCORE', by_age, id)
if died_at and tonumber(died_at) ~= tonumber(ARGV[2]) then
    return -3
end
local stored = redis.call('GET', result)
if stored then
    local read, meta = pcall(cjson.decode, stored)
    local status = read and type(meta) == 'table' and meta['status']
    if status == 'SUCCESS' or status == 'REVOKED' then
        return status
    end
end
if dry then
    return 1
end
if most > 0 then
    if redis.call('LLEN', queue) >= most then
        return -1
    end
    for _, behind in ipairs(redis.call('SMEMBERS', KEYS[8])) do
        if redis.call('LLEN', behind) >= most then
            return -1
        end
    end
end
redis.call('LPUSH', queue, ARGV[4])
redis.call('HDEL', letters, id)
redis.call('ZREM', by_age, id)
-- The first outcome stands: without this the failure would be it. A replay is a newer wish than
-- to cancel.
redis.call('DEL', result)
redis.call('ZREM', KEYS[5], id)
redis.call('HINCRBY', KEYS[3], 'replayed', 1)
if redis.call('EXISTS', wake) == 0 then
    redis.call('LPUSH', wake, '1')
end
return 1
