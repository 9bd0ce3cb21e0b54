"""A workflow's run as it is kept in the store, and the scripts that change it atomically.

::

    convotic:workflow:0199...    id, name, status, step, input, created_at, updated_at, error
                                 result:reserve   {"place": 7}     JSON, one for each step done
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import from_json

from convotic_celery.context.publishing import encode_json
from convotic_celery.context.scripts import Script
from convotic_celery.errors import InvalidField

__all__ = [
    "CREATE_RUN",
    "END_STEP",
    "FAIL_RUN",
    "KEPT_SECONDS",
    "RESUME_RUN",
    "WorkflowRun",
    "check_run_id",
    "encode_value",
    "parse_run",
]

#: How long a run that has ended is kept.
KEPT_SECONDS = 30 * 24 * 3600

_MAX_ID_CHARACTERS = 200
_MAX_VALUE_BYTES = 1_000_000


class WorkflowRun(BaseModel):
    """One run of a workflow, as it stood when it was read."""

    model_config = ConfigDict(frozen=True)

    id: str
    #: The workflow's.
    name: str
    status: Literal["running", "completed", "failed"]
    #: Steps done so far; the one that is done next, counted from 0.
    step: int
    input: JsonValue = None
    #: What each step has returned, by its name.
    results: dict[str, JsonValue] = Field(default_factory=dict)
    #: Why it failed.
    error: str | None = None
    created_at: datetime
    updated_at: datetime


#: KEYS run; ARGV the hash. Gives the hash, of the first call if there were more.
CREATE_RUN = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('HSET', KEYS[1], unpack(ARGV)) end
return redis.call('HGETALL', KEYS[1])
""")

#: KEYS run; ARGV step, result's field, result, new status, now, time to live in ms or "". Gives 1
#: done, 0 another run of this step was faster, -1 no such run.
END_STEP = Script("""
local step = redis.call('HGET', KEYS[1], 'step')
if not step then return -1 end
local following = tonumber(ARGV[1]) + 1
if tonumber(step) ~= tonumber(ARGV[1]) then
  if tonumber(step) == following and redis.call('HGET', KEYS[1], 'updated_at') == ARGV[5] then
    return 1
  end
  return 0
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3], 'step', following, 'status', ARGV[4],
  'updated_at', ARGV[5])
redis.call('HDEL', KEYS[1], 'error')
if ARGV[6] ~= '' then redis.call('PEXPIRE', KEYS[1], ARGV[6]) end
return 1
""")

#: KEYS run; ARGV step, error, now, time to live in ms. Gives 1 if that step is the run's next one.
FAIL_RUN = Script("""
local step, status = unpack(redis.call('HMGET', KEYS[1], 'step', 'status'))
if not step or tonumber(step) ~= tonumber(ARGV[1]) or status == 'completed' then return 0 end
redis.call('HSET', KEYS[1], 'status', 'failed', 'error', ARGV[2], 'updated_at', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
""")

#: KEYS run; ARGV now. Gives the hash, of a failed run as running again.
RESUME_RUN = Script("""
if redis.call('HGET', KEYS[1], 'status') == 'failed' then
  redis.call('HSET', KEYS[1], 'status', 'running', 'updated_at', ARGV[1])
  redis.call('HDEL', KEYS[1], 'error')
  redis.call('PERSIST', KEYS[1])
end
return redis.call('HGETALL', KEYS[1])
""")


def check_run_id(run_id: str) -> str:
    """Return the id; raises InvalidField."""
    if not isinstance(run_id, str) or not 1 <= len(run_id) <= _MAX_ID_CHARACTERS:
        raise InvalidField(f"a run's id is a string of 1 to {_MAX_ID_CHARACTERS} characters")
    return run_id


def encode_value(what: str, value: object) -> str:
    """Return an input or result as JSON; raises NotSerializable, or InvalidField if too large."""
    raw = encode_json(value)
    if len(raw) > _MAX_VALUE_BYTES:
        raise InvalidField(
            f"{what} has {len(raw):,} bytes, a workflow keeps {_MAX_VALUE_BYTES:,}: put it into "
            "ctx.storage, and its key here"
        )
    return raw.decode()


def parse_run(flat: Iterable[str]) -> WorkflowRun | None:
    """Return the run that a hash, as a flat list of names and values, holds; None if empty."""
    values = iter(flat)
    fields: dict[str, Any] = {"results": {}}
    for name, value in zip(values, values, strict=True):
        if name.startswith("result:"):
            fields["results"][name.removeprefix("result:")] = from_json(value)
        else:
            fields[name] = from_json(value) if name == "input" else value
    return WorkflowRun.model_validate(fields) if "id" in fields else None
