"""What the store does in one step for :class:`~convotic_celery.dead_letters.jobs.Journal`.

Its keys stand there; P is their prefix.
"""

from __future__ import annotations

from convotic_celery.context.scripts import Script

__all__ = [
    "ADD",
    "CANCEL",
    "CHOOSE",
    "COUNT",
    "DISOWN",
    "NEWEST",
    "OWN",
    "READ",
    "SKIP",
    "TAKE",
    "WRITE",
]

#: ARGV P, job, seconds to live, newest, oldest, limit or "", then sorted sets. Gives how many.
CHOOSE = Script("""
local P, todo = ARGV[1], ARGV[1] .. 'job:' .. ARGV[2] .. ':todo'
for first = 7, #ARGV, 1000 do  -- unpack() takes fewer than 8,000
  local keys = {todo}
  for i = first, math.min(first + 999, #ARGV) do keys[#keys + 1] = P .. ARGV[i] end
  redis.call('ZUNIONSTORE', todo, #keys, unpack(keys))
end
if ARGV[4] ~= '+inf' then redis.call('ZREMRANGEBYSCORE', todo, '(' .. ARGV[4], '+inf') end
redis.call('ZREMRANGEBYSCORE', todo, '-inf', '(' .. ARGV[5])
if ARGV[6] ~= '' then redis.call('ZREMRANGEBYRANK', todo, ARGV[6], -1) end
redis.call('EXPIRE', todo, ARGV[3])
return redis.call('ZCARD', todo)
""")

#: ARGV P, job, seconds to live, then ids.
ADD = Script("""
local todo = ARGV[1] .. 'job:' .. ARGV[2] .. ':todo'
for i = 4, #ARGV do
  local at = redis.call('HGET', ARGV[1] .. 'entry:' .. ARGV[i], 'at')
  if at then redis.call('ZADD', todo, at, ARGV[i]) end
end
redis.call('EXPIRE', todo, ARGV[3])
return redis.call('ZCARD', todo)
""")

#: ARGV P, job, seconds to live, began at, then the hash.
WRITE = Script("""
local key = ARGV[1] .. 'job:' .. ARGV[2]
redis.call('ZADD', ARGV[1] .. 'jobs', ARGV[4], ARGV[2])
redis.call('ZREMRANGEBYRANK', ARGV[1] .. 'jobs', 0, -1001)
redis.call('HSET', key, unpack(ARGV, 5))
redis.call('EXPIRE', key, ARGV[3])
redis.call('EXPIRE', ARGV[1] .. 'jobs', ARGV[3])
return 1
""")

#: ARGV P, then jobs. Gives of each its hash, how many are to do, and its owner.
READ = Script("""
local answer = {}
for i = 2, #ARGV do
  local key = ARGV[1] .. 'job:' .. ARGV[i]
  answer[#answer + 1] = {redis.call('HGETALL', key), redis.call('ZCARD', key .. ':todo'),
    redis.call('GET', key .. ':owner') or ''}
end
return answer
""")

#: ARGV P, how many. Gives the newest jobs.
NEWEST = Script("return redis.call('ZRANGE', ARGV[1] .. 'jobs', 0, ARGV[2] - 1, 'REV')")

#: ARGV P, job, owner, milliseconds. Gives "cancelled", "taken" by another, or "".
OWN = Script("""
local key = ARGV[1] .. 'job:' .. ARGV[2]
if redis.call('HGET', key, 'cancel') then return 'cancelled' end
local owner = redis.call('GET', key .. ':owner')
if owner and owner ~= ARGV[3] and owner ~= 'reserved' then return 'taken' end
redis.call('SET', key .. ':owner', ARGV[3], 'PX', ARGV[4])
return ''
""")

#: ARGV P, job, owner, milliseconds that it is reserved for the next one.
DISOWN = Script("""
local key = ARGV[1] .. 'job:' .. ARGV[2] .. ':owner'
if redis.call('GET', key) ~= ARGV[3] then return 0 end
if ARGV[4] == '0' then return redis.call('DEL', key) end
redis.call('SET', key, 'reserved', 'PX', ARGV[4])
return 1
""")

#: ARGV P, job, from, how many. Gives ids, the oldest first.
TAKE = Script("""
return redis.call('ZRANGE', ARGV[1] .. 'job:' .. ARGV[2] .. ':todo', ARGV[3],
  ARGV[3] + ARGV[4] - 1)
""")

#: ARGV P, job, counter, then ids: not done, and not to be done.
SKIP = Script("""
local key, gone = ARGV[1] .. 'job:' .. ARGV[2], 0
for i = 4, #ARGV do gone = gone + redis.call('ZREM', key .. ':todo', ARGV[i]) end
return redis.call('HINCRBY', key, ARGV[3], gone)
""")

#: ARGV P, job, counter, amount.
COUNT = Script("return redis.call('HINCRBY', ARGV[1] .. 'job:' .. ARGV[2], ARGV[3], ARGV[4])")

#: ARGV P, job. Gives 1 if it can still be cancelled; it is over at once if nobody works on it.
CANCEL = Script("""
local key = ARGV[1] .. 'job:' .. ARGV[2]
local state = redis.call('HGET', key, 'state')
if not state or state == 'done' or state == 'cancelled' or state == 'failed' then return 0 end
redis.call('HSET', key, 'cancel', '1')
local owner = redis.call('GET', key .. ':owner')
if not owner or owner == 'reserved' then redis.call('HSET', key, 'state', 'cancelled') end
return 1
""")
