-- Settles claims: what becomes of a message, and its acknowledgement, in one step.
--
-- KEYS: claims, leases, dead letters, dead letters by age, counters, the queues behind each lane of
--   `requests`: interactive, batch; the decision ledger, the joins by until when they wait
-- ARGV: what the wake-up lists' names begin with, and those of joins, for how many seconds a session
--   is remembered, then the operations:
--   'ack', claim
--   'back', claim, queue, 'next' or 'last', message: onto its queue again
--   'hop', claim, queue, message: onto another queue
--   'spread', claim, how many messages, queue and message of each, then '', or where they are
--     joined: id, how many must answer, of how many, within how many ms, within how many ms even if
--     none has answered, queue, message, 1 if it may go onto the queue of any that ended, for how
--     many seconds all this is kept after that, the round, 1 if it is enough that one has failed
--   'join', claim, id, number, round or '', how it ended, 1 if it answered, its queue or '', entry,
--     entries, bill
--   'record', claim, entry, entries, bill
--   'overdue', now in ms ('' for the server's clock), how many at most: join what waited too long;
--     where none has answered, the first that does is waited for
--   'end', claim or '', result key, result, for how many seconds, the client's channel or '', id,
--     dead letter or '', its reason, when it died in seconds, entry, entries, session key or '',
--     the session's model, 1 if it was joined, bill
--   A failure (an end with a dead letter, a join without an answer) needs the claim that it names:
--   who lost it can't say how the request ends, only what that has cost.
--   An entry ('' for none) goes to the decision ledger, which keeps about so many entries.
--   A bill ('' for none) is JSON: the key of a day's sums, budgets, what is added to each, for how
--     many seconds the sums are kept.
-- Returns for each operation: 1 if it was done, 0 if the claim was lost (an end: if there was an
--   outcome already; a join: if the member had ended, or nobody waits for it), -3 if a failure does
--   not count, as the claim was lost; for 'overdue' how many.
--
-- The channel of a client is told two lines for each outcome: the id, and the result, or nothing if
-- that is long or has lines itself. A notice of many holds the results of the first of them.
local claims, leases = KEYS[1], KEYS[2]
-- The first write needs no memory, so a server that is full lets work in hand come to its end. A
-- server that takes no writes at all refuses it, and then nothing has happened.
redis.call('ZREM', leases, '')
local said, told, size, woken, behind = {}, {}, {}, {}, {}
local at = 4
local FENCED = -3

local function drop(claim)
    redis.call('ZREM', leases, claim)
    redis.call('HDEL', claims, claim)
end

local function holds(claim)
    return redis.call('HEXISTS', claims, claim) == 1
end

local function lost(claim)
    return claim ~= '' and not holds(claim)
end

local function is_models(queue)
    return string.find(queue, '^model%.') or string.find(queue, '^batch%.model%.')
end

local function push(queue, message)
    redis.call('LPUSH', queue, message)
    woken[queue], behind[queue] = true, true
end

local function record(entry, entries)
    if entry ~= '' then
        redis.call('XADD', KEYS[8], 'MAXLEN', '~', entries, '*', 'e', entry)
    end
end

local function charge(bill)
    if bill ~= '' then
        local read = cjson.decode(bill)
        for _, budget in ipairs(read['budgets']) do
            redis.call('HINCRBY', read['key'], budget, read['nano_usd'])
        end
        redis.call('EXPIRE', read['key'], read['keep_s'])
    end
end

local function now_ms()
    local time = redis.call('TIME')
    return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- What waits for members goes on with those that have answered, once: its message is gone then.
local function release(id, key)
    local queue, message, ttl = unpack(redis.call('HMGET', key, 'queue', 'message', 'ttl'))
    redis.call('ZREM', KEYS[9], id)
    if queue and message then
        redis.call('HDEL', key, 'message')
        redis.call('HSET', key, 'released', 1)
        -- Not before: as long as the message is here, it is nowhere else.
        if ttl then
            redis.call('EXPIRE', key, ttl)
        end
        push(queue, message)
        return 1
    end
    return 0
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
        if holds(claim) then
            redis.call(ARGV[at + 3] == 'next' and 'RPUSH' or 'LPUSH', queue, ARGV[at + 4])
            drop(claim)
            woken[queue] = true
            -- While all of it was in hand, a submit may have found the queue empty and forgotten it.
            behind[queue] = is_models(queue) or nil
            done = 1
        end
        at = at + 5
    elseif kind == 'hop' then
        if holds(claim) then
            push(ARGV[at + 2], ARGV[at + 3])
            drop(claim)
            done = 1
        end
        at = at + 4
    elseif kind == 'spread' then
        local last = at + 2 + 2 * tonumber(ARGV[at + 2])
        local id, held = ARGV[last + 1], holds(claim)
        if held and id ~= '' then
            local key = ARGV[2] .. id
            redis.call('DEL', key)
            local now = now_ms()
            redis.call('HSET', key, 'need', ARGV[last + 2], 'members', ARGV[last + 3],
                'last', string.format('%.0f', now + tonumber(ARGV[last + 5])),
                'queue', ARGV[last + 6], 'message', ARGV[last + 7], 'anywhere', ARGV[last + 8],
                'ttl', ARGV[last + 9], 'round', ARGV[last + 10], 'needs_all', ARGV[last + 11])
            redis.call('ZADD', KEYS[9], now + tonumber(ARGV[last + 4]), id)
        end
        if held then
            for each = at + 3, last, 2 do
                push(ARGV[each], ARGV[each + 1])
            end
            drop(claim)
            done = 1
        end
        at = last + (id == '' and 2 or 12)
    elseif kind == 'join' then
        local id, round, ended, queue = ARGV[at + 2], ARGV[at + 4], ARGV[at + 5], ARGV[at + 7]
        local key, field = ARGV[2] .. id, 'm' .. ARGV[at + 3]
        local need, waited = unpack(redis.call('HMGET', key, 'need', 'round'))
        local known = need and (not waited or waited == '' or round == '' or round == waited)
        local failed = ARGV[at + 6] ~= '1'
        if known and failed and lost(claim) and redis.call('HEXISTS', key, field) == 0 then
            charge(ARGV[at + 10])
            done = FENCED
        elseif known and redis.call('HSETNX', key, field, ended) == 1 then
            local how = redis.call('HMGET', key, 'need', 'members', 'anywhere', 'needs_all')
            local answered = redis.call('HINCRBY', key, 'answered', ARGV[at + 6])
            local all = redis.call('HINCRBY', key, 'ended', 1)
            if (not failed or answered == 0) and how[3] == '1' and queue ~= '' then
                redis.call('HSET', key, 'queue', queue)
            end
            local spoilt = how[4] == '1' and failed
            if answered >= tonumber(how[1]) or all >= tonumber(how[2]) or spoilt then
                release(id, key)
            end
            record(ARGV[at + 8], ARGV[at + 9])
            charge(ARGV[at + 10])
            done = 1
        elseif known then
            done = redis.call('HGET', key, field) == ended and 1 or 0
        elseif holds(claim) then
            record(ARGV[at + 8], ARGV[at + 9]) -- It came after the end: nobody waits for it.
            charge(ARGV[at + 10])
        end
        drop(claim)
        at = at + 11
    elseif kind == 'record' then
        if holds(claim) then
            record(ARGV[at + 2], ARGV[at + 3])
            charge(ARGV[at + 4])
            drop(claim)
            done = 1
        end
        at = at + 5
    elseif kind == 'overdue' then
        local now = tonumber(claim) or now_ms()
        local due = redis.call('ZRANGEBYSCORE', KEYS[9], '-inf', now, 'LIMIT', 0, ARGV[at + 2])
        for _, id in ipairs(due) do
            local key = ARGV[2] .. id
            local answered, last = unpack(redis.call('HMGET', key, 'answered', 'last'))
            if last and tonumber(last) > now and tonumber(answered or 0) == 0 then
                redis.call('HSET', key, 'need', 1)
                redis.call('ZADD', KEYS[9], last, id)
            else
                done = done + release(id, key)
            end
        end
        at = at + 3
    else
        local key, result, channel, id = ARGV[at + 2], ARGV[at + 3], ARGV[at + 5], ARGV[at + 6]
        local letter = ARGV[at + 7]
        local ended, stored, status = has_outcome(key)
        -- The request lives on: whoever has the claim now may answer it.
        local fenced = not ended and letter ~= '' and lost(claim)
        -- What came too late was paid for as well; but not what is told a second time.
        if not ended or (stored ~= result and holds(claim)) then
            charge(ARGV[at + 15])
        end
        if fenced then
            redis.call('HINCRBY', KEYS[5], 'duplicates', 1)
            done = FENCED
        elseif not ended then
            redis.call('SET', key, result, 'EX', ARGV[at + 4])
            if letter ~= '' then
                redis.call('HSET', KEYS[3], id, letter)
                redis.call('ZADD', KEYS[4], ARGV[at + 9], id)
                redis.call('HINCRBY', KEYS[5], 'dead_' .. ARGV[at + 8], 1)
            end
            record(ARGV[at + 10], ARGV[at + 11])
            if ARGV[at + 12] ~= '' then
                redis.call('SET', ARGV[at + 12], ARGV[at + 13], 'EX', ARGV[3])
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
        if ARGV[at + 14] == '1' and not fenced then
            redis.call('DEL', ARGV[2] .. id)
            redis.call('ZREM', KEYS[9], id)
        end
        if claim ~= '' then
            drop(claim)
        end
        at = at + 16
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
