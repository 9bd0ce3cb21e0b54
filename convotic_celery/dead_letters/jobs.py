"""The journal of what replays, redirects and purges have still to do: :class:`Journal`.

It is in the store, so it survives the process that does the work, and any other can follow and
cancel it::

    P jobs                 sorted set of jobs by the time they began
    P job:JOB              hash: action, by, what, state, total, done, skipped, collected, …
    P job:JOB:todo         sorted set of the entries that were chosen when it began; what is done
                           is removed together with the change of its entry
    P job:JOB:owner        the process that works on it, or a reservation for the one that will;
                           expires when that is gone
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from convotic_celery.dead_letters import job_scripts
from convotic_celery.dead_letters.entry import from_microseconds, microseconds
from convotic_celery.dead_letters.index import in_batches
from convotic_celery.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from convotic_celery.dead_letters.index import Index
    from convotic_celery.dead_letters.match import Match

__all__ = ["Action", "Job", "JobState", "Journal"]

Action: TypeAlias = Literal["replay", "redirect", "purge"]
#: ``choosing`` until all that matched is noted; ``collecting``: all is published, what is left in
#: the dead-letter subscription is acknowledged.
JobState: TypeAlias = Literal["choosing", "running", "collecting", "done", "cancelled", "failed"]

#: How long a killed process's job stays its own, and how long one that has begun is reserved.
_OWNER_SECONDS = 5
#: How long a finished job can be looked at.
_KEPT_SECONDS = 7 * 24 * 3600


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
    #: False while a process works on it, or is about to, and when it is over.
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
        """Note all that matches now, the oldest first if there is a limit; return the job.

        It is the caller's for some seconds: nobody calls it abandoned before :meth:`owned`.
        """
        job, owner = secrets.token_hex(5), secrets.token_hex(8)
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
        self.own(job, owner)
        with self.owned(job, owner, reserved=True):
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
            return int(self.run(job_scripts.CHOOSE, job, ttl, newest, oldest, most, *keys))
        chosen = [each.id for each in self._index.each(match)]
        if limit is not None:
            chosen = chosen[-limit:] if limit else []
        total = 0
        for some in in_batches(chosen, 1_000):
            total = int(self.run(job_scripts.ADD, job, ttl, *some))
        return total

    def _write(self, job: str, fields: Mapping[str, object]) -> None:
        flat = [part for name, value in fields.items() for part in (name, value)]
        self.run(job_scripts.WRITE, job, _KEPT_SECONDS, fields["began"], *flat)

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
        return self._read(self.run(job_scripts.NEWEST, limit), missing_ok=True)

    def _read(self, jobs: Sequence[str], *, missing_ok: bool = False) -> list[Job]:
        found = []
        for job, (raw, _todo, owner) in zip(jobs, self.run(job_scripts.READ, *jobs), strict=True):
            fields = dict(zip(raw[::2], raw[1::2], strict=True))
            if "action" in fields:
                found.append(_parse(job, fields, owner))
            elif not missing_ok:
                raise LookupError(f"there is no job {job!r}; `convotic dlq jobs` lists them")
        return found

    def own(self, job: str, owner: str) -> str:
        """Be or stay the one that works on it; "cancelled" or "taken" if that is not possible."""
        answer: str = self.run(job_scripts.OWN, job, owner, _OWNER_SECONDS * 1000)
        return answer

    @contextmanager
    def owned(self, job: str, owner: str, *, reserved: bool = False) -> Iterator[None]:
        """Stay its owner within, however long a step takes, and leave it to others at the end.

        ``reserved``: The next owner is about to come.
        """
        stopped = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(job, owner, stopped), daemon=True)
        keeper.start()
        try:
            yield
        except BaseException:
            reserved = False
            raise
        finally:
            stopped.set()
            keeper.join()  # or it would take the job back
            self.run(job_scripts.DISOWN, job, owner, _OWNER_SECONDS * 1000 if reserved else 0)

    def _keep(self, job: str, owner: str, stopped: threading.Event) -> None:
        while not stopped.wait(_OWNER_SECONDS / 4):
            with contextlib.suppress(StoreUnavailable):  # the owner notices by itself
                self.own(job, owner)

    def handlers(self, job: str) -> dict[str, int]:
        """Return of which handlers something is done, and how much is not collected yet."""
        raw = self.run(job_scripts.READ, job)[0][0]
        fields = dict(zip(raw[::2], raw[1::2], strict=True))
        moved = {name[3:]: int(n) for name, n in fields.items() if name.startswith("of:")}
        return {handler: n - int(fields.get(f"got:{handler}", 0)) for handler, n in moved.items()}

    def take(self, job: str, behind: int, count: int) -> list[str]:
        """Return what is to do next, but for as many as were left behind."""
        ids: list[str] = self.run(job_scripts.TAKE, job, behind, count)
        return ids

    def skip(self, job: str, counter: str, ids: Sequence[str]) -> None:
        """Have some not be done, and count them."""
        for some in in_batches(ids, 1_000):
            self.run(job_scripts.SKIP, job, counter, *some)

    def count(self, job: str, counter: str, amount: int) -> None:
        """Add to a counter."""
        if amount:
            self.run(job_scripts.COUNT, job, counter, amount)

    def cancel(self, job: str) -> bool:
        """Have it end before its next batch; False if it is over, or unknown."""
        return bool(self.run(job_scripts.CANCEL, job))

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
