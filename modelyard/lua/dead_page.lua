-- Reads one page of the dead letters in the order of their age, and of their ids within one moment.
--
-- KEYS: dead letters, dead letters by age
-- ARGV: 'up' (the oldest first) or 'down', the moment and the id to go on from, '1' if that one was
--   read already, the moment to end at, how many at most, how many bytes of each (0: all of it),
--   how many bytes in all (one letter may be more)
-- Returns for each: id, when it died, and the letter, or nothing if only the index knows it.
--
-- It goes on from a place and not from a number, so letters that come and go meanwhile shift nothing.
local letters, by_age = KEYS[1], KEYS[2]
local up, moment, id = ARGV[1] == 'up', ARGV[2], ARGV[3]
local last, most, head, room = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

-- Redis orders ids by their bytes; Lua's own < would ask the server's locale.
local function less(one, other)
    for at = 1, math.min(#one, #other) do
        local a, b = one:byte(at), other:byte(at)
        if a ~= b then
            return a < b
        end
    end
    return #one < #other
end

local function id_at(rank)
    return redis.call('ZRANGE', by_age, rank, rank)[1]
end

-- How many letters come before the place: those of earlier moments, and some of this one.
local from = redis.call('ZCOUNT', by_age, '-inf', '(' .. moment)
local to = redis.call('ZCOUNT', by_age, '-inf', moment)
local ties_end = to
while from < to do
    local middle = math.floor((from + to) / 2)
    if less(id_at(middle), id) then
        from = middle + 1
    else
        to = middle
    end
end
local found
if up then
    if ARGV[4] == '1' and from < ties_end and id_at(from) == id then
        from = from + 1
    end
    found = redis.call('ZRANGE', by_age, from, from + most - 1, 'WITHSCORES')
elseif from == 0 then
    return {}
else
    found = redis.call('ZRANGE', by_age, math.max(0, from - most), from - 1, 'WITHSCORES')
end
local said, bytes = {}, 0
for nth = 1, #found / 2 do
    local at = up and 2 * nth - 1 or #found - 2 * nth + 1
    local died_at = tonumber(found[at + 1])
    if up and died_at >= last or not up and died_at < last then
        break
    end
    local letter = redis.call('HGET', letters, found[at])
    if letter and head > 0 then
        letter = letter:sub(1, head)
    end
    bytes = bytes + (letter and #letter or 0)
    if nth > 1 and bytes > room then
        break
    end
    said[#said + 1] = found[at]
    said[#said + 1] = found[at + 1]
    said[#said + 1] = letter
end
return said
