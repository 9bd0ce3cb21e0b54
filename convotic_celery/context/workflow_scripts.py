"""The scripts that change a workflow's run, and the indexes of runs, atomically.

::

    convotic:workflow:0199...            the run, see workflow_runs.py
    convotic:workflows:NAME:STATUS       sorted set of members "ID OF THE INDEX:RUN'S ID", by age;
                                         NAME and STATUS are also empty: any

A run that has ended expires; its members stay in the indexes until a script finds them there.
"""

from __future__ import annotations

from convotic_celery.context.scripts import Script

__all__ = [
    "BEGIN_STEP",
    "CREATE_RUN",
    "END_STEP",
    "FAIL_RUN",
    "LIST_RUNS",
    "RESUME_RUN",
]

#: A member's run: what follows a UUID and a colon.
_RUN_OF = "local function run_of(member) return string.sub(member, 38) end\n"

#: Moves a run from its status to another one, in the indexes; to be called before the hash changes.
_MOVE = """
local function move(run, indexes, status)
  local name, old, member = unpack(redis.call('HMGET', run, 'name', 'status', '_index'))
  if not member or old == status then return end
  for _, of in ipairs({'', name}) do
    redis.call('ZREM', indexes .. of .. ':' .. old, member)
    redis.call('ZADD', indexes .. of .. ':' .. status, 0, member)
  end
end
"""

#: KEYS run; ARGV indexes, prefix of runs, name, member, then the hash. Gives the hash, of the first
#: call if there were more. Drops a few of the oldest members whose runs are gone.
CREATE_RUN = Script(
    _RUN_OF
    + """
local indexes, runs, name, member = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if redis.call('EXISTS', KEYS[1]) == 1 then return redis.call('HGETALL', KEYS[1]) end
redis.call('HSET', KEYS[1], '_index', member, unpack(ARGV, 5))
for _, of in ipairs({'', name}) do
  redis.call('ZADD', indexes .. of .. ':', 0, member)
  redis.call('ZADD', indexes .. of .. ':running', 0, member)
end
for _, status in ipairs({'completed', 'failed'}) do
  for _, old in ipairs(redis.call('ZRANGE', indexes .. name .. ':' .. status, 0, 9)) do
    if redis.call('HGET', runs .. run_of(old), '_index') ~= old then
      for _, of in ipairs({'', name}) do
        redis.call('ZREM', indexes .. of .. ':', old)
        redis.call('ZREM', indexes .. of .. ':' .. status, old)
      end
    end
  end
end
return redis.call('HGETALL', KEYS[1])
"""
)

#: KEYS run; ARGV step, its name, now. Gives the hash.
BEGIN_STEP = Script("""
local step, status = unpack(redis.call('HMGET', KEYS[1], 'step', 'status'))
if step and tonumber(step) == tonumber(ARGV[1]) and status == 'running' then
  redis.call('HSET', KEYS[1], 'step_name', ARGV[2], 'updated_at', ARGV[3])
end
return redis.call('HGETALL', KEYS[1])
""")

#: KEYS run; ARGV indexes, step, result's field, result, new status, now, time to live in ms or "".
#: Gives 1 done, 0 another run of this step was faster, -1 no such run.
END_STEP = Script(
    _MOVE
    + """
local step = redis.call('HGET', KEYS[1], 'step')
if not step then return -1 end
local following = tonumber(ARGV[2]) + 1
if tonumber(step) ~= tonumber(ARGV[2]) then
  if tonumber(step) == following and redis.call('HGET', KEYS[1], 'updated_at') == ARGV[6] then
    return 1
  end
  return 0
end
move(KEYS[1], ARGV[1], ARGV[5])
redis.call('HSET', KEYS[1], ARGV[3], ARGV[4], 'step', following, 'status', ARGV[5],
  'updated_at', ARGV[6])
redis.call('HDEL', KEYS[1], 'error')
if ARGV[7] ~= '' then redis.call('PEXPIRE', KEYS[1], ARGV[7])
else redis.call('PERSIST', KEYS[1]) end
return 1
"""
)

#: KEYS run; ARGV indexes, step, error, now, time to live in ms. Gives 1 if that step is the run's
#: next one.
FAIL_RUN = Script(
    _MOVE
    + """
local step, status = unpack(redis.call('HMGET', KEYS[1], 'step', 'status'))
if not step or tonumber(step) ~= tonumber(ARGV[2]) or status == 'completed' then return 0 end
move(KEYS[1], ARGV[1], 'failed')
redis.call('HSET', KEYS[1], 'status', 'failed', 'error', ARGV[3], 'updated_at', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
"""
)

#: KEYS run; ARGV indexes, now. Gives the hash, of a failed run as running again.
RESUME_RUN = Script(
    _MOVE
    + """
if redis.call('HGET', KEYS[1], 'status') == 'failed' then
  move(KEYS[1], ARGV[1], 'running')
  redis.call('HSET', KEYS[1], 'status', 'running', 'updated_at', ARGV[2])
  redis.call('HDEL', KEYS[1], 'error')
  redis.call('PERSIST', KEYS[1])
end
return redis.call('HGETALL', KEYS[1])
"""
)

#: KEYS index; ARGV where to begin, limit, prefix of runs. Gives, the newest first, a member and
#: its run's values of the fields that follow in ARGV.
LIST_RUNS = Script(
    _RUN_OF
    + """
local found, start, limit = {}, ARGV[1], tonumber(ARGV[2])
repeat
  local members = redis.call('ZRANGE', KEYS[1], start, '-', 'BYLEX', 'REV', 'LIMIT', 0, limit)
  for _, member in ipairs(members) do
    local run = ARGV[3] .. run_of(member)
    if redis.call('HGET', run, '_index') == member then
      found[#found + 1] = {member, redis.call('HMGET', run, unpack(ARGV, 4))}
    else
      redis.call('ZREM', KEYS[1], member)
    end
    if #found == limit then return found end
    start = '(' .. member
  end
until #members < limit
return found
"""
)
