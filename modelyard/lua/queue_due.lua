-- Looks for deadlines among the messages that wait in some queues, without reading all of them.
--
-- KEYS: queues
-- ARGV: how many of the next messages of each queue are looked at, how many more of the rest (evenly
--   spread, the last of all among them), and after how many bytes of a queue nothing more is
-- Returns for each queue a list: of each message with a deadline how many are taken before it, and
--   the deadline as text, in seconds since the epoch.
--
-- The text that is looked for is inside a JSON string inside JSON; a prompt that has the same words
-- has one more backslash before each quote. What is no time of these days is a parameter of that
-- name.
local MARK = ',\\"deadline\\":'
local nearest, spread, most_bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local function deadline(message)
    local from, to = string.find(message, MARK, 1, true)
    while from do
        local number = string.match(message, '^[%d.]+', to + 1)
        local at = number and tonumber(number) or 0
        if at >= 1e9 and at < 1e11 then
            return number
        end
        from, to = string.find(message, MARK, to + 1, true)
    end
end

local said = {}
for index, queue in ipairs(KEYS) do
    local length, bytes, found, last = redis.call('LLEN', queue), 0, {}, -1

    local function look(at)
        if at <= last or at >= length or bytes > most_bytes then
            return
        end
        last = at
        local message = redis.call('LINDEX', queue, -1 - at) or ''
        bytes = bytes + #message
        local due = deadline(message)
        if due then
            found[#found + 1] = at
            found[#found + 1] = due
        end
    end

    for at = 0, nearest - 1 do
        look(at)
    end
    local rest = length - nearest
    for step = 1, spread do
        look(nearest - 1 + math.ceil(rest * step / spread))
    end
    said[index] = found
end
return said
