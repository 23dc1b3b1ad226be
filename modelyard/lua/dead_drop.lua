-- Removes dead letters, each only if it is the one that was looked at.
--
-- KEYS: dead letters, dead letters by age, counters
-- ARGV: for each letter its id and when it died: the same request may have died again since
-- Returns for each: 1 if it was removed, 0 if it is gone, -3 if another letter is in its place.
local said, dropped = {}, 0
for at = 1, #ARGV, 2 do
    local id = ARGV[at]
    local died_at = redis.call('ZSCORE', KEYS[2], id)
    if redis.call('HEXISTS', KEYS[1], id) == 0 then
        said[#said + 1] = 0
    elseif died_at and tonumber(died_at) ~= tonumber(ARGV[at + 1]) then
        said[#said + 1] = -3
    else
        redis.call('HDEL', KEYS[1], id)
        redis.call('ZREM', KEYS[2], id)
        dropped = dropped + 1
        said[#said + 1] = 1
    end
end
if dropped > 0 then
    redis.call('HINCRBY', KEYS[3], 'dropped', dropped)
end
return said
