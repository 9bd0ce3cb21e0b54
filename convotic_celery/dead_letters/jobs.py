"""The journal of what replays, redirects and purges have still to do: :class:`Journal`.

It is in the store, so it survives the process that does the work, and any other can follow and
cancel it::

    P jobs                 sorted set of jobs by the time they began
    P job:JOB              hash: action, by, what, state, total, done, skipped, collected, …
    P job:JOB:todo         sorted set of the entries that were chosen when it began; what is done
                           is removed together with the change of its entry
    P job:JOB:owner        the process that works on it; expires when that is gone
"""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from convotic_celery.context.scripts import Script
from convotic_celery.dead_letters.entry import from_microseconds, microseconds
from convotic_celery.dead_letters.index import in_batches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convotic_celery.dead_letters.index import Index
    from convotic_celery.dead_letters.match import Match

__all__ = ["OWNER_SECONDS", "Action", "Job", "JobState", "Journal"]

Action: TypeAlias = Literal["replay", "redirect", "purge"]
#: ``choosing`` until all that matched is noted; ``collecting``: all is published, what is left in
#: the dead-letter subscription is acknowledged.
JobState: TypeAlias = Literal["choosing", "running", "collecting", "done", "cancelled", "failed"]

#: How long a killed worker's job stays its own.
OWNER_SECONDS = 5
#: How long a finished job can be looked at.
_KEPT_SECONDS = 7 * 24 * 3600

#: ARGV P, job, seconds to live, newest, oldest, limit or "", then sorted sets. Gives how many.
_CHOOSE = Script("""
local P, todo = ARGV[1], ARGV[1] .. 'job:' .. ARGV[2] .. ':todo'
local keys = {}
for i = 7, #ARGV do keys[#keys + 1] = P .. ARGV[i] end
redis.call('ZUNIONSTORE', todo, #keys, unpack(keys))
if ARGV[4] ~= '+inf' then redis.call('ZREMRANGEBYSCORE', todo, '(' .. ARGV[4], '+inf') end
redis.call('ZREMRANGEBYSCORE', todo, '-inf', '(' .. ARGV[5])
if ARGV[6] ~= '' then redis.call('ZREMRANGEBYRANK', todo, ARGV[6], -1) end
redis.call('EXPIRE', todo, ARGV[3])
return redis.call('ZCARD', todo)
""")

#: ARGV P, job, seconds to live, then ids.
_ADD = Script("""
local todo = ARGV[1] .. 'job:' .. ARGV[2] .. ':todo'
for i = 4, #ARGV do
  local at = redis.call('HGET', ARGV[1] .. 'entry:' .. ARGV[i], 'at')
  if at then redis.call('ZADD', todo, at, ARGV[i]) end
end
redis.call('EXPIRE', todo, ARGV[3])
return redis.call('ZCARD', todo)
""")

#: ARGV P, job, seconds to live, began at, then the hash.
_WRITE = Script("""
local key = ARGV[1] .. 'job:' .. ARGV[2]
redis.call('ZADD', ARGV[1] .. 'jobs', ARGV[4], ARGV[2])
redis.call('ZREMRANGEBYRANK', ARGV[1] .. 'jobs', 0, -1001)
redis.call('HSET', key, unpack(ARGV, 5))
redis.call('EXPIRE', key, ARGV[3])
redis.call('EXPIRE', ARGV[1] .. 'jobs', ARGV[3])
return 1
""")

#: ARGV P, then jobs. Gives of each its hash, how many are to do, and its owner.
_READ = Script("""
local answer = {}
for i = 2, #ARGV do
  local key = ARGV[1] .. 'job:' .. ARGV[i]
  answer[#answer + 1] = {redis.call('HGETALL', key), redis.call('ZCARD', key .. ':todo'),
    redis.call('GET', key .. ':owner') or ''}
end
return answer
""")

#: ARGV P, how many. Gives the newest jobs.
_NEWEST = Script("return redis.call('ZRANGE', ARGV[1] .. 'jobs', 0, ARGV[2] - 1, 'REV')")

#: ARGV P, job, owner, milliseconds. Gives "cancelled", "taken" by another, or "".
_OWN = Script("""
local key = ARGV[1] .. 'job:' .. ARGV[2]
if redis.call('HGET', key, 'cancel') then return 'cancelled' end
local owner = redis.call('GET', key .. ':owner')
if owner and owner ~= ARGV[3] then return 'taken' end
redis.call('SET', key .. ':owner', ARGV[3], 'PX', ARGV[4])
return ''
""")

#: ARGV P, job, owner.
_DISOWN = Script("""
local key = ARGV[1] .. 'job:' .. ARGV[2] .. ':owner'
if redis.call('GET', key) == ARGV[3] then redis.call('DEL', key) end
return 1
""")

#: ARGV P, job, from, how many. Gives ids, the oldest first.
_TAKE = Script("""
return redis.call('ZRANGE', ARGV[1] .. 'job:' .. ARGV[2] .. ':todo', ARGV[3],
  ARGV[3] + ARGV[4] - 1)
""")

#: ARGV P, job, counter, then ids: not done, and not to be done.
_SKIP = Script("""
local key, gone = ARGV[1] .. 'job:' .. ARGV[2], 0
for i = 4, #ARGV do gone = gone + redis.call('ZREM', key .. ':todo', ARGV[i]) end
return redis.call('HINCRBY', key, ARGV[3], gone)
""")

#: ARGV P, job, counter, amount.
_COUNT = Script("return redis.call('HINCRBY', ARGV[1] .. 'job:' .. ARGV[2], ARGV[3], ARGV[4])")

#: ARGV P, job. Gives 1 if it can still be cancelled.
_CANCEL = Script("""
local key = ARGV[1] .. 'job:' .. ARGV[2]
local state = redis.call('HGET', key, 'state')
if not state or state == 'done' or state == 'cancelled' or state == 'failed' then return 0 end
redis.call('HSET', key, 'cancel', '1')
return 1
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A replay, redirect or purge, and how far it is."""

    id: str
    action: Action
    by: str
    #: What was chosen, in words.
    what: str
    state: JobState
    began_at: datetime
    #: How many were chosen.
    total: int
    #: How many are published again (or purged).
    done: int = 0
    #: Not replayed, since the loop guard or a change of state forbids it, or since it is an
    #: ordinary task, which no handler can take.
    skipped: int = 0
    #: Could not be published; they stay where they are.
    failed: int = 0
    #: Not found: neither a copy in the store nor a message in the subscription.
    not_found: int = 0
    #: Dead letters acknowledged in their subscription.
    collected: int = 0
    #: A redirect's handler.
    target: str = ""
    #: Most messages a second; 0: no limit.
    rate: float = 0.0
    max_replays: int = 10
    #: What ended it, if it failed.
    error: str = ""
    #: False while a process works on it, and when it is over.
    is_abandoned: bool = False
    #: Subscriptions of other handlers of the topic that have no filter of ours, and see it too.
    warnings: Sequence[str] = ()

    @property
    def is_over(self) -> bool:
        """True if nothing more will happen."""
        return self.state in {"done", "cancelled", "failed"}

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        shown = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**shown, "began_at": self.began_at.isoformat(), "warnings": list(self.warnings)}


class Journal:
    """Jobs in the store. Thread-safe; every method raises StoreUnavailable."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self.run = index.run

    def begin(
        self,
        action: Action,
        match: Match,
        *,
        by: str,
        limit: int | None,
        target: str = "",
        rate: float = 0.0,
        max_replays: int = 10,
        warnings: Sequence[str] = (),
    ) -> Job:
        """Note all that matches now, the oldest first if there is a limit; return the job."""
        job = f"{secrets.token_hex(5)}"
        now = self._index.now()
        fields: dict[str, object] = {
            "action": action,
            "by": by,
            "what": match.describe(),
            "began": microseconds(now),
            "target": target,
            "rate": rate,
            "max_replays": max_replays,
            "warnings": "\n".join(warnings),
        }
        self._write(job, fields | {"state": "choosing"})
        total = self._choose(job, match, limit)
        self._write(job, {"began": microseconds(now), "total": total, "state": "running"})
        return self.read(job)

    def _choose(self, job: str, match: Match, limit: int | None) -> int:
        ttl, most = self._index.ttl, "" if limit is None else str(limit)
        if not match.looks_at_entries and not match.ids:
            groups = self._index.groups_of(match)
            newest, oldest = self._index.bounds(match)
            keys = [f"state:{match.state}"]
            if groups is not None:
                keys = [f"group:{group.id}:{match.state}" for group in groups]
            if not keys:
                return 0
            return int(self.run(_CHOOSE, job, ttl, newest, oldest, most, *keys))
        chosen = [each.id for each in self._index.each(match)]
        if limit is not None:
            chosen = chosen[-limit:] if limit else []
        total = 0
        for some in in_batches(chosen, 1_000):
            total = int(self.run(_ADD, job, ttl, *some))
        return total

    def _write(self, job: str, fields: Mapping[str, object]) -> None:
        flat = [part for name, value in fields.items() for part in (name, value)]
        self.run(_WRITE, job, _KEPT_SECONDS, fields["began"], *flat)

    def set_state(self, job: Job, state: JobState, error: str = "") -> Job:
        """Note what happens now."""
        fields = {"began": microseconds(job.began_at), "state": state, "error": error}
        self._write(job.id, fields)
        return self.read(job.id)

    def set_rate(self, job: Job, rate: float) -> Job:
        """Change how fast it is done."""
        self._write(job.id, {"began": microseconds(job.began_at), "rate": rate})
        return self.read(job.id)

    def read(self, job: str) -> Job:
        """Return a job; raises LookupError for an unknown one."""
        return self._read([job])[0]

    def newest(self, limit: int = 50) -> list[Job]:
        """Return the jobs that are known, newest first."""
        return self._read(self.run(_NEWEST, limit), missing_ok=True)

    def _read(self, jobs: Sequence[str], *, missing_ok: bool = False) -> list[Job]:
        found = []
        for job, (raw, _todo, owner) in zip(jobs, self.run(_READ, *jobs), strict=True):
            fields = dict(zip(raw[::2], raw[1::2], strict=True))
            if "action" in fields:
                found.append(_parse(job, fields, owner))
            elif not missing_ok:
                raise LookupError(f"there is no job {job!r}; `convotic dlq jobs` lists them")
        return found

    def own(self, job: str, owner: str) -> str:
        """Be or stay the one that works on it; "cancelled" or "taken" if that is not possible."""
        answer: str = self.run(_OWN, job, owner, OWNER_SECONDS * 1000)
        return answer

    def disown(self, job: str, owner: str) -> None:
        """Leave it to others."""
        self.run(_DISOWN, job, owner)

    def handlers(self, job: str) -> dict[str, int]:
        """Return of which handlers something is done, and how much is not collected yet."""
        raw = self.run(_READ, job)[0][0]
        fields = dict(zip(raw[::2], raw[1::2], strict=True))
        moved = {name[3:]: int(n) for name, n in fields.items() if name.startswith("of:")}
        return {handler: n - int(fields.get(f"got:{handler}", 0)) for handler, n in moved.items()}

    def take(self, job: str, behind: int, count: int) -> list[str]:
        """Return what is to do next, but for as many as were left behind."""
        ids: list[str] = self.run(_TAKE, job, behind, count)
        return ids

    def skip(self, job: str, counter: str, ids: Sequence[str]) -> None:
        """Have some not be done, and count them."""
        for some in in_batches(ids, 1_000):
            self.run(_SKIP, job, counter, *some)

    def count(self, job: str, counter: str, amount: int) -> None:
        """Add to a counter."""
        if amount:
            self.run(_COUNT, job, counter, amount)

    def cancel(self, job: str) -> bool:
        """Have it end before its next batch; False if it is over, or unknown."""
        return bool(self.run(_CANCEL, job))

    def todo_key(self, job: str) -> str:
        """Return the key of what is to do."""
        return f"{self._index.prefix}job:{job}:todo"


def _parse(job: str, fields: dict[str, str], owner: str) -> Job:
    state: JobState = fields["state"]  # type: ignore[assignment]  # as it was written
    over = state in {"done", "cancelled", "failed"}
    warnings = fields.get("warnings", "")
    numbers = ("total", "done", "skipped", "failed", "not_found", "collected")
    return Job(
        id=job,
        action=fields["action"],  # type: ignore[arg-type]  # as above
        by=fields["by"],
        what=fields["what"],
        state=state,
        began_at=from_microseconds(fields["began"]),
        target=fields.get("target", ""),
        rate=float(fields.get("rate", 0)),
        max_replays=int(fields.get("max_replays", 10)),
        error=fields.get("error", ""),
        is_abandoned=not over and not owner,
        warnings=warnings.split("\n") if warnings else (),
        **{name: int(fields.get(name, 0)) for name in numbers},
    )
