-- Makes the index of the dead letters agree with the letters.
--
-- KEYS: dead letters, dead letters by age
-- ARGV: for each letter its id, and when it died or '' if that is not known
-- Returns how many entries were added or removed.
local mended = 0
for at = 1, #ARGV, 2 do
    local id, died_at = ARGV[at], ARGV[at + 1]
    if redis.call('HEXISTS', KEYS[1], id) == 0 then
        mended = mended + redis.call('ZREM', KEYS[2], id)
    elseif died_at ~= '' then
        mended = mended + redis.call('ZADD', KEYS[2], 'NX', died_at, id)
    end
end
return mended
