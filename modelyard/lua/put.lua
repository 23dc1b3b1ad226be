-- Puts messages on one queue, each of them once, if there is room.
--
-- KEYS: the queue, its wake-up list, the dead letters, the queues behind it
-- ARGV: most messages in each of these queues, most dead letters (0: no bound), then for each message
--   mark key or '', the id to remember under it, for how many seconds, the message
-- Returns for each message: 1 if it was put, the id under its mark if that was put before,
--   -1 if one of the queues has no room, -2 if the store of dead letters has none.
local queue, wake = KEYS[1], KEYS[2]
local most, most_dead = tonumber(ARGV[1]), tonumber(ARGV[2])
local length = redis.call('LLEN', queue)
local dead_full = most_dead > 0 and redis.call('HLEN', KEYS[3]) >= most_dead
local full = false
if most > 0 then
    for _, behind in ipairs(redis.call('SMEMBERS', KEYS[4])) do
        local waiting = redis.call('LLEN', behind)
        full = full or waiting >= most
        if waiting == 0 then
            redis.call('SREM', KEYS[4], behind) -- the next hop to it puts it back
        end
    end
end
local said, put = {}, 0
for at = 3, #ARGV, 4 do
    local mark, message = ARGV[at], ARGV[at + 3]
    local known = mark ~= '' and redis.call('GET', mark)
    if known then
        said[#said + 1] = known
    elseif full or most > 0 and length + put >= most then
        said[#said + 1] = -1
    elseif dead_full then
        said[#said + 1] = -2
    else
        -- The message first: a script that fails between the two is not undone, and a message
        -- without its mark is a lesser evil than a mark without its message.
        redis.call('LPUSH', queue, message)
        if mark ~= '' then
            redis.call('SET', mark, ARGV[at + 1], 'EX', ARGV[at + 2])
        end
        put = put + 1
        said[#said + 1] = 1
    end
end
if put > 0 and redis.call('EXISTS', wake) == 0 then
    redis.call('LPUSH', wake, '1')
end
return said
