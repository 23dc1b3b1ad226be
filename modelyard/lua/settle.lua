-- Settles claims: what becomes of a message, and its acknowledgement, in one step.
--
-- KEYS: claims, leases, dead letters, dead letters by age, counters, the queues behind each lane of
--   `requests`: interactive, batch
-- ARGV: what the wake-up lists' names begin with, then the operations:
--   'ack', claim
--   'back', claim, queue, 'next' or 'last', message: onto its queue again
--   'hop', claim, queue, message: onto another queue
--   'end', claim or '', result key, result, for how many seconds, the client's channel or '', id,
--     dead letter or '', its reason, when it died in seconds
-- Returns for each operation: 1 if it was done, 0 if the claim was lost (an end: if there was an
--   outcome already).
--
-- The channel of a client is told two lines for each outcome: the id, and the result, or nothing if
-- that is long or has lines itself. A notice of many holds the results of the first of them.
local claims, leases = KEYS[1], KEYS[2]
-- The first write needs no memory, so a server that is full lets work in hand come to its end. A
-- server that takes no writes at all refuses it, and then nothing has happened.
redis.call('ZREM', leases, '')
local said, told, size, woken, behind = {}, {}, {}, {}, {}
local at = 2

local function drop(claim)
    redis.call('ZREM', leases, claim)
    redis.call('HDEL', claims, claim)
end

local function has_outcome(key, result)
    local stored = redis.call('GET', key)
    if not stored then
        return false
    end
    local read, meta = pcall(cjson.decode, stored)
    local status = read and type(meta) == 'table' and meta['status']
    local ended = not read or status == 'SUCCESS' or status == 'FAILURE' or status == 'REVOKED'
    return ended, stored, status
end

while at <= #ARGV do
    local kind, claim = ARGV[at], ARGV[at + 1]
    local done = 0
    if kind == 'ack' then
        drop(claim)
        done, at = 1, at + 2
    elseif kind == 'back' then
        local queue = ARGV[at + 2]
        if redis.call('HEXISTS', claims, claim) == 1 then
            redis.call(ARGV[at + 3] == 'next' and 'RPUSH' or 'LPUSH', queue, ARGV[at + 4])
            drop(claim)
            woken[queue] = true
            done = 1
        end
        at = at + 5
    elseif kind == 'hop' then
        local queue = ARGV[at + 2]
        if redis.call('HEXISTS', claims, claim) == 1 then
            redis.call('LPUSH', queue, ARGV[at + 3])
            drop(claim)
            woken[queue], behind[queue] = true, true
            done = 1
        end
        at = at + 4
    else
        local key, result, channel, id = ARGV[at + 2], ARGV[at + 3], ARGV[at + 5], ARGV[at + 6]
        local letter = ARGV[at + 7]
        local ended, stored, status = has_outcome(key)
        if not ended then
            redis.call('SET', key, result, 'EX', ARGV[at + 4])
            if letter ~= '' then
                redis.call('HSET', KEYS[3], id, letter)
                redis.call('ZADD', KEYS[4], ARGV[at + 9], id)
                redis.call('HINCRBY', KEYS[5], 'dead_' .. ARGV[at + 8], 1)
            end
            redis.call('PUBLISH', key, result)
            if channel ~= '' and not string.find(id, '\n', 1, true) then
                told[channel], size[channel] = told[channel] or {}, size[channel] or 0
                local sent = #result <= 2048 and size[channel] + #result <= 65536
                    and not string.find(result, '\n', 1, true) and result or ''
                size[channel] = size[channel] + #sent
                table.insert(told[channel], id .. '\n' .. sent)
            end
            done = 1
        elseif stored == result then
            done = 1 -- It is this very outcome: the reply to an earlier try was lost.
        elseif status ~= 'REVOKED' then -- what was cancelled while it ran is no second outcome
            redis.call('HINCRBY', KEYS[5], 'duplicates', 1)
        end
        if claim ~= '' then
            drop(claim)
        end
        at = at + 10
    end
    said[#said + 1] = done
end
for channel, ids in pairs(told) do
    redis.call('PUBLISH', channel, table.concat(ids, '\n'))
end
for queue in pairs(woken) do
    local wake = ARGV[1] .. queue
    if redis.call('EXISTS', wake) == 0 then
        redis.call('LPUSH', wake, '1')
    end
end
-- What a submit looks at to know whether there is room behind it.
for queue in pairs(behind) do
    redis.call('SADD', string.sub(queue, 1, 6) == 'batch.' and KEYS[7] or KEYS[6], queue)
end
return said
