-- Says how long some queues are, and how old the message is that is taken next.
--
-- KEYS: queues
-- Returns for each queue: its length, and when that message's request was submitted, in seconds
--   since the epoch ('' if it does not say).
--
-- The text that is looked for is inside a JSON string inside JSON; a prompt that has the same words
-- has one more backslash before each quote.
local said = {}
for _, queue in ipairs(KEYS) do
    local length = redis.call('LLEN', queue)
    local next_one = length > 0 and redis.call('LINDEX', queue, -1) or ''
    said[#said + 1] = length
    said[#said + 1] = string.match(next_one, ',\\"submitted_at\\":([%d.]+)') or ''
end
return said
