-- Renews leases on answers that are being made, or gives them back, if they are still there.
--
-- KEYS: the keys of the answers
-- ARGV: for how many ms from now (0: give them back), then what each key holds if the lease is ours
-- Returns how many were.
local ours = 0
for at, key in ipairs(KEYS) do
    if redis.call('GET', key) == ARGV[at + 1] then
        ours = ours + 1
        if tonumber(ARGV[1]) > 0 then
            redis.call('PEXPIRE', key, ARGV[1])
        else
            redis.call('DEL', key)
        end
    end
end
return ours
