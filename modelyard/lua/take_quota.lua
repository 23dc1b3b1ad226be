-- Takes quota for calls, and says what each may do.
--
-- KEYS: the worker processes by when they were last heard of, then for each scope its meters and its
--   calls in flight
-- ARGV: now in s ('' for the server's clock), this process, after how many s without a word it is
--   gone, for how many s a meter is kept, how many scopes, then for each scope: interval and burst
--   of requests, of tokens (0: no limit), concurrency (0: no limit), the share that the batch lane
--   gets, how many calls of this process are in flight there; then how many corrections, for each:
--   scope, tokens that were taken too few (or too many, if negative), 1 if of the batch lane; then
--   for each take: tokens, 1 if of the batch lane, how many s it would wait, how many candidates, for
--   each: how many scopes, their numbers
-- Returns for each take three numbers: its candidate, in how many ms it may call, 0; or 0, in how many
--   ms it should ask again, and which scope of a candidate (from 1) it has to wait for.
--
-- A meter is a hash: `r` and `t` are the arrival times of requests and tokens, `br` and `bt` those of
-- the batch lane. Model: modelyard/quota.py.
redis.call('ZREM', KEYS[1], '')
local time = redis.call('TIME')
local now = tonumber(ARGV[1]) or tonumber(time[1]) + tonumber(time[2]) / 1e6
local process, gone_s, keep_s = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local at = 5

local function read()
    at = at + 1
    return tonumber(ARGV[at - 1])
end

redis.call('ZADD', KEYS[1], now, process)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - gone_s)
redis.call('EXPIRE', KEYS[1], math.ceil(gone_s) + 60)

local scopes, changed = {}, {}
for number = 1, read() do
    local scope = {meters = KEYS[2 * number], flights = KEYS[2 * number + 1]}
    scope.r = {read(), read()}
    scope.t = {read(), read()}
    scope.most, scope.share, scope.mine = read(), read(), read()
    local kept = redis.call('HMGET', scope.meters, 'r', 't', 'br', 'bt')
    scope.arrival = {
        r = tonumber(kept[1] or 0), t = tonumber(kept[2] or 0),
        br = tonumber(kept[3] or 0), bt = tonumber(kept[4] or 0),
    }
    scope.others = 0
    if scope.most > 0 then
        local counts = redis.call('HGETALL', scope.flights)
        for each = 1, #counts, 2 do
            if counts[each] ~= process then
                if redis.call('ZSCORE', KEYS[1], counts[each]) then
                    scope.others = scope.others + tonumber(counts[each + 1])
                else
                    redis.call('HDEL', scope.flights, counts[each])
                end
            end
        end
    end
    scopes[number] = scope
end

-- The meters of a lane: name, interval, burst.
local function meters_of(scope, batch)
    local meters = {}
    for _, kind in ipairs({'r', 't'}) do
        local interval, burst = scope[kind][1], scope[kind][2]
        if interval > 0 then
            meters[#meters + 1] = {kind, kind, interval, burst}
            if batch and scope.share < 1 then
                meters[#meters + 1] = {
                    'b' .. kind, kind, interval / scope.share, math.max(1, burst * scope.share)
                }
            end
        end
    end
    return meters
end

for _ = 1, read() do
    local scope, tokens, batch = scopes[read()], read(), read() == 1
    for _, meter in ipairs(meters_of(scope, batch)) do
        if meter[2] == 't' then
            scope.arrival[meter[1]] = scope.arrival[meter[1]] + tokens * meter[3]
            changed[scope] = true
        end
    end
end

local function delay_of(scope, tokens, batch)
    local delay = 0
    for _, meter in ipairs(meters_of(scope, batch)) do
        local amount = meter[2] == 'r' and 1 or tokens
        local begin = math.max(scope.arrival[meter[1]], now)
        local wait = begin + (math.min(amount, meter[4]) - meter[4]) * meter[3] - now
        delay = math.max(delay, wait)
    end
    return delay
end

local function is_full(scope, batch)
    if scope.most == 0 then
        return false
    end
    local most = scope.most
    if batch then
        most = math.max(1, math.floor(most * scope.share))
    end
    return scope.others + scope.mine >= most
end

local function take(scope, tokens, batch)
    for _, meter in ipairs(meters_of(scope, batch)) do
        local amount = meter[2] == 'r' and 1 or tokens
        scope.arrival[meter[1]] = math.max(scope.arrival[meter[1]], now) + amount * meter[3]
    end
    scope.mine = scope.mine + 1
    changed[scope] = true
end

local said = {}
while at <= #ARGV do
    local tokens, batch, patience, candidates = read(), read() == 1, read(), read()
    local chosen, least, full = 0, nil, nil
    local chosen_delay, chosen_scopes = nil, nil
    local full_at, least_at = 0, 0
    for candidate = 1, candidates do
        local some, delay, delay_at, busy = {}, 0, 0, nil
        for each = 1, read() do
            some[each] = scopes[read()]
            local wait = delay_of(some[each], tokens, batch)
            if wait > delay then
                delay, delay_at = wait, each
            end
            busy = busy or (is_full(some[each], batch) and each)
        end
        if busy then
            full, full_at = true, full_at > 0 and full_at or busy
        else
            if least == nil or delay < least then
                least, least_at = delay, delay_at
            end
            -- The first in their order that needs no wait, or else the one that waits least.
            if delay <= patience and (chosen_delay == nil or delay < chosen_delay) then
                chosen, chosen_delay, chosen_scopes = candidate, delay, some
            end
        end
    end
    if chosen > 0 then
        for _, scope in ipairs(chosen_scopes) do
            take(scope, tokens, batch)
        end
        said[#said + 1] = chosen
        said[#said + 1] = math.ceil(chosen_delay * 1000)
        said[#said + 1] = 0
    else
        -- What waits for a call to end asks again soon: nobody knows when that is.
        local wait = full and 0.25 or least or 0.25
        said[#said + 1] = 0
        said[#said + 1] = math.ceil(math.max(0.05, wait) * 1000)
        said[#said + 1] = least and least_at or full_at
    end
end
for number, scope in ipairs(scopes) do
    if changed[scope] then
        local arrival = scope.arrival
        redis.call('HSET', scope.meters,
            'r', string.format('%.6f', arrival.r), 't', string.format('%.6f', arrival.t),
            'br', string.format('%.6f', arrival.br), 'bt', string.format('%.6f', arrival.bt))
        redis.call('EXPIRE', scope.meters, keep_s)
    end
    if scope.most > 0 then
        redis.call('HSET', scope.flights, process, scope.mine)
        redis.call('EXPIRE', scope.flights, keep_s)
    end
end
return said
