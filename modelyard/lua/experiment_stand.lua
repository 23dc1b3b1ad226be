-- Sets how an experiment stands, if it stands as whoever decides that has seen it.
--
-- KEYS: how experiments stand, counters
-- ARGV: its name, how it was seen to stand ('' if nothing was set), how it stands from now on,
--   the counter to raise ('' for none)
-- Returns 1, or 0 if it stands otherwise by now: somebody was first.
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then
    return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
if ARGV[4] ~= '' then
    redis.call('HINCRBY', KEYS[2], ARGV[4], 1)
end
return 1
