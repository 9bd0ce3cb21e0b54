"""Locks in the store, as Lua: which run has a key, and what has succeeded. One round trip each.

A key that is deduplicated is a hash; a concurrency key is a sorted set of runs, by when each
lock ends::

    convotic:dedup:custom.orders.new.crm:42          token 9f0c…, fence 17    for the lock
                                                     done 9f0c…, fence 17     for the window
    convotic:concurrency:custom.orders.new.crm:c-1   9f0c… 1795478400123
    convotic:fence                                   17

All are written to be repeated with the same token: the client repeats a call whose answer was lost.
"""

from __future__ import annotations

from convotic_celery.context.scripts import Script

__all__ = ["CLAIM", "COMPLETE", "ENTER", "LEAVE", "RELEASE", "RENEW", "STAY"]

#: KEYS key, fence; ARGV token, lock ms. Gives {"claimed", fence}, {"busy", ms} or {"done", ""}.
CLAIM = Script("""
local token, done, fence = unpack(redis.call('HMGET', KEYS[1], 'token', 'done', 'fence'))
if done then return {'done', ''} end
if token and token ~= ARGV[1] then
  return {'busy', tostring(redis.call('PTTL', KEYS[1]))}
end
if not token then
  fence = tostring(redis.call('INCR', KEYS[2]))
  redis.call('HSET', KEYS[1], 'token', ARGV[1], 'fence', fence)
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {'claimed', fence}
""")

#: KEYS key; ARGV token, lock ms. Gives 1 renewed, 0 another has it, -1 it is free.
RENEW = Script("""
local token, done = unpack(redis.call('HMGET', KEYS[1], 'token', 'done'))
if token == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
if token or (done and done ~= ARGV[1]) then return 0 end
return -1
""")

#: KEYS key, [the run's concurrency key]; ARGV token, window ms. Leaves the concurrency key. Gives 1
#: if this run's success is what is remembered, 0 if another run has taken the key meanwhile: then
#: that one's outcome counts.
COMPLETE = Script("""
if KEYS[2] then redis.call('ZREM', KEYS[2], ARGV[1]) end
local token, done = unpack(redis.call('HMGET', KEYS[1], 'token', 'done'))
if done then return done == ARGV[1] and 1 or 0 end
if token and token ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'done', ARGV[1])
redis.call('HDEL', KEYS[1], 'token')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
""")

#: KEYS key; ARGV token. Gives 1 if it was freed; never frees another's, nor a success.
RELEASE = Script("""
if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""")

#: KEYS key; ARGV token, lock ms, limit. Gives 1 entered, 0 full.
ENTER = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not known and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
""")

#: KEYS key; ARGV token, lock ms, limit. Gives 1 renewed, 0 others have all slots, -1 it was lost
#: and is free.
STAY = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
return -1
""")

#: KEYS key; ARGV token.
LEAVE = Script("return redis.call('ZREM', KEYS[1], ARGV[1])")
