-- Acknowledges claims, and claims the oldest messages of some queues.
--
-- KEYS: claims, leases, cancelled, then a queue and its wake-up list for each queue
-- ARGV: now in ms ('' for the server's clock), lease in ms, what the new claims' names begin with,
--   how many acknowledgements, room in all, then the acknowledged claims, then for each queue its
--   share of the room and the most that may be taken of it
-- Returns which of them are cancelled, as ids, then for each message: its queue's number from 1, claim,
--   message.
--
-- Each queue gives up to its share; room that is left goes to the queues in their order.
local claims, leases = KEYS[1], KEYS[2]
-- A server that is full refuses a script's first write, if that needs memory. This one needs none:
-- what is in the queues can be worked off when nothing can be added. A server that takes no writes
-- at all refuses it, and then nothing has happened.
redis.call('ZREM', leases, '')
local acks, room = tonumber(ARGV[4]), tonumber(ARGV[5])
for at = 6, 5 + acks do
    redis.call('ZREM', leases, ARGV[at])
    redis.call('HDEL', claims, ARGV[at])
end
local time = redis.call('TIME')
local now = tonumber(ARGV[1]) or tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local due = now + tonumber(ARGV[2])
-- Most of the time nothing is cancelled, and nobody reads ids.
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now / 1000)
local some_are_cancelled = redis.call('EXISTS', KEYS[3]) == 1
-- A client may send the same call twice, if it did not hear the reply to the first. The time makes
-- the names new: a message under a name that is in use would take the place of another.
local name = ARGV[3] .. time[1] .. '.' .. time[2] .. ':'
local said, ids, taken, number = {{}}, {}, {}, 0

-- Returns the id in a message's headers, or nil. In a body all quotes are escaped, so the first `"id":`
-- is a header's; to decode megabytes for it would hold up Redis. Who is given the message reads it all.
local function id_of(message)
    local from, to = string.find(message, '"id"', 1, true)
    while from do
        local id = string.match(message, '^%s*:%s*"([^"]*)"', to + 1)
        if id and string.find(id, '\\', 1, true) then
            local read, whole = pcall(cjson.decode, message)
            local headers = read and type(whole) == 'table' and whole['headers']
            id = type(headers) == 'table' and headers['id']
            return type(id) == 'string' and id or nil
        elseif id then
            return id
        end
        from, to = string.find(message, '"id"', to + 1, true)
    end
end

local function take(index, most)
    local queue = KEYS[2 + 2 * index]
    local messages = redis.call('LRANGE', queue, -most, -1)
    if #messages == 0 then
        return 0
    end
    local due_of, kept = {}, {}
    for at = #messages, 1, -1 do
        number = number + 1
        local claim = name .. number
        due_of[#due_of + 1] = due
        due_of[#due_of + 1] = claim
        kept[#kept + 1] = claim
        kept[#kept + 1] = queue .. '\0' .. messages[at]
        said[#said + 1] = index
        said[#said + 1] = claim
        said[#said + 1] = messages[at]
        if some_are_cancelled then
            ids[#ids + 1] = id_of(messages[at])
        end
    end
    redis.call('ZADD', leases, unpack(due_of))
    redis.call('HSET', claims, unpack(kept))
    redis.call('LTRIM', queue, 0, -1 - #messages)
    return #messages
end

local queues = (#KEYS - 3) / 2
for index = 1, queues do
    local at = 4 + acks + 2 * index
    local most = math.min(room, tonumber(ARGV[at]), tonumber(ARGV[at + 1]))
    taken[index] = most > 0 and take(index, most) or 0
    room = room - taken[index]
end
for index = 1, queues do
    local most = math.min(room, tonumber(ARGV[5 + acks + 2 * index]) - taken[index])
    if most > 0 then
        local more = take(index, most)
        taken[index] = taken[index] + more
        room = room - more
    end
end
for at, until_s in ipairs(#ids > 0 and redis.call('ZMSCORE', KEYS[3], unpack(ids)) or {}) do
    if until_s then
        table.insert(said[1], ids[at])
    end
end
-- Whoever takes some and leaves some wakes the next: one idle worker for each that was busy. It may
-- have come for the token of one queue and have filled its room from another, so all are looked at.
for index = 1, number > 0 and queues or 0 do
    local wake = KEYS[3 + 2 * index]
    if redis.call('EXISTS', wake) == 0 and redis.call('EXISTS', KEYS[2 + 2 * index]) == 1 then
        redis.call('LPUSH', wake, '1')
    end
end
return said
