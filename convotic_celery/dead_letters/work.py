"""Does jobs: :class:`Work`.

A job has two parts. First what is chosen is *published*, from the copies in the index, some batches
under way at a time; each is moved to "replayed" in the step that takes it off the journal. Then it
is *collected*: the dead-letter subscription is pulled, what is done with is acknowledged, and what
the index has no copy of is published from there. A process that dies in between loses nothing: the
journal says what is left, and the message waits in its subscription until it is acknowledged.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from convotic_celery.dead_letters.index import in_batches
from convotic_celery.dead_letters.passes import Passes
from convotic_celery.dead_letters.sending import (
    OnProgress,
    Pace,
    Sender,
    UnderWay,
    data_for,
    has_copy,
)
from convotic_celery.errors import JobTaken
from convotic_pubsub.client.inspection import LEASE_SECONDS

if TYPE_CHECKING:
    from convotic_celery.dead_letters.deployment import Deployment
    from convotic_celery.dead_letters.entry import DeadLetter
    from convotic_celery.dead_letters.index import Index
    from convotic_celery.dead_letters.jobs import Job, Journal
    from convotic_pubsub.client.inspection import Seen

__all__ = ["Work"]

logger = logging.getLogger(__name__)

#: Of what is left of a job, so many ids are read at once.
_CHUNK = 5_000
#: Of entries, whose data may be large.
_FEW = 250
#: How often a subscription is looked at whose messages a killed process still holds.
_LOOK_AGAIN_SECONDS = 2.0


class Work:
    """Does one job at a time, in the calling thread."""

    def __init__(self, deployment: Deployment, index: Index, journal: Journal) -> None:
        self._index = index
        self._journal = journal
        self._sender = Sender(deployment, index, journal)
        self._passes = Passes(deployment, index)
        self._owner = secrets.token_hex(8)

    # -- jobs -------------------------------------------------------------------------------------

    def run(self, job: Job, on_progress: OnProgress | None = None) -> Job:
        """Do what is left of a job; return it as it is at the end.

        Raises:
            JobTaken: Another process works on it.
        """
        tell = on_progress or (lambda _job: None)
        if not self._goes_on(job):
            return self._journal.set_state(job, "cancelled")
        try:
            with self._journal.owned(job.id, self._owner):
                if job.state == "choosing":
                    return self._journal.set_state(job, "failed", "it died while it was choosing")
                if not self._publish_copies(job, tell):
                    return self._journal.set_state(job, "cancelled")
                self._journal.set_state(job, "collecting")
                was_killed = job.state == "collecting"
                is_whole = self._collect(job, tell, LEASE_SECONDS if was_killed else 0.0)
                job = self._journal.set_state(job, "done" if is_whole else "cancelled")
        except Exception as error:
            # Not "failed": what is left can be resumed.
            logger.debug("Job %s stopped: %r", job.id, error)
            raise
        tell(job)
        return self._journal.read(job.id)

    def _goes_on(self, job: Job) -> bool:
        answer = self._journal.own(job.id, self._owner)
        if answer == "taken":
            raise JobTaken(job.id)
        return answer != "cancelled"

    def _publish_copies(self, job: Job, tell: OnProgress) -> bool:
        """Publish what the index has copies of; False if it was cancelled."""
        left_behind, pace = 0, Pace(job.rate)
        while ids := self._journal.take(job.id, left_behind, _CHUNK):
            with UnderWay() as under_way:  # at its end, none of these ids is
                for some in in_batches(ids, pace.batch):
                    if not self._goes_on(job):
                        return False
                    chosen = self._sender.sieve(job, some)
                    copies = [(d, data_for(d, d.data or b"")) for d in chosen if has_copy(job, d)]
                    left_behind += len(chosen) - len(copies)
                    sent = self._sender.send(job, copies)
                    under_way.add(partial(self._sender.settle, job, sent, tell))
                    pace.wait(len(copies))
        return self._goes_on(job)

    # -- collecting -------------------------------------------------------------------------------

    def _collect(self, job: Job, tell: OnProgress, patience_seconds: float) -> bool:
        """Acknowledge what is done with, and act on what the index has no copy of.

        False if it was cancelled. ``patience_seconds`` is how long a killed process may still hold
        messages.
        """
        ends_at = time.monotonic() + patience_seconds
        expected = self._journal.handlers(job.id)
        for handler in sorted({h for h, n in expected.items() if n > 0} | self._left(job)):
            self._collect_of(job, handler, expected.get(handler, 0), tell, ends_at)
        if not self._goes_on(job):
            return False
        while ids := self._journal.take(job.id, 0, _CHUNK):
            self._journal.skip(job.id, "not_found", ids)
        return True

    def _left(self, job: Job) -> set[str]:
        """Return the handlers of what is still to do."""
        found: set[str] = set()
        count = 0
        while ids := self._journal.take(job.id, count, _FEW):
            count += len(ids)
            found |= {dead.handler for dead in self._index.read(ids)}
        return found

    def _collect_of(
        self, job: Job, handler: str, expected: int, tell: OnProgress, ends_at: float
    ) -> None:
        todo, pace = self._journal.todo_key(job.id), Pace(job.rate)

        def look(
            seen: Sequence[Seen],
            dead: Sequence[DeadLetter],
            acknowledge: Callable[[Sequence[str]], object],
        ) -> None:
            nonlocal expected
            decided = self._index.decide(dead, todo=todo)
            ack_ids = {d.id: s.ack_id for s, d in zip(seen, dead, strict=True)}
            stale = [s.ack_id for s, what in zip(seen, decided, strict=True) if what == "stale"]
            expected -= len(stale)
            self._note_collected(job, handler, stale, acknowledge)
            data = {d.id: s.received.data for s, d in zip(seen, dead, strict=True)}
            mine = [d.id for d, what in zip(dead, decided, strict=True) if what == "todo"]
            for some in in_batches(mine, pace.batch):
                chosen = self._sender.sieve(job, some)
                sent = self._sender.send(job, [(d, data_for(d, data[d.id])) for d in chosen])
                done = [ack_ids[entry] for entry in self._sender.settle(job, sent, tell)]
                self._note_collected(job, handler, done, acknowledge)
                pace.wait(len(chosen))
            tell(self._journal.read(job.id))

        def goes_on() -> bool:
            has_more = expected > 0 or bool(self._journal.take(job.id, 0, 1))
            return has_more and self._goes_on(job)

        while goes_on():
            passed = self._passes.go_through(handler, look, goes_on)
            is_all = passed.is_complete and passed.is_certain
            if is_all or time.monotonic() >= ends_at:
                return
            pace.sleep(_LOOK_AGAIN_SECONDS)

    def _note_collected(
        self,
        job: Job,
        handler: str,
        ack_ids: Sequence[str],
        acknowledge: Callable[[Sequence[str]], object],
    ) -> None:
        """Acknowledge messages, and count them after that: who dies in between looks again."""
        acknowledge(ack_ids)
        self._journal.count(job.id, f"got:{handler}", len(ack_ids))
        self._journal.count(job.id, "collected", len(ack_ids))
