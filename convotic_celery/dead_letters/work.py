"""Does jobs: :class:`Work`.

A job has two parts. First what is chosen is *published*, from the copies in the index, some batches
under way at a time; each is moved to "replayed" in the step that takes it off the journal. Then it
is *collected*: the dead-letter subscription is pulled, what is done with is acknowledged, and what
the index has no copy of is published from there. A process that dies in between loses nothing: the
journal says what is left, and the message waits in its subscription until it is acknowledged.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeAlias

from convotic_celery.dead_letters.index import in_batches
from convotic_celery.dead_letters.jobs import OWNER_SECONDS
from convotic_celery.dead_letters.passes import Passes
from convotic_celery.errors import JobTaken, StoreUnavailable
from convotic_celery.runtime.delivery.attributes import (
    MESSAGE_ID_ATTRIBUTE,
    REPLAY_COUNT_ATTRIBUTE,
    REPLAY_TOKEN_ATTRIBUTE,
    TARGET_ATTRIBUTE,
)
from convotic_pubsub.client.inspection import LEASE_SECONDS
from convotic_pubsub.outgoing import OutgoingMessage

if TYPE_CHECKING:
    from concurrent.futures import Future

    from convotic_celery.dead_letters.deployment import Deployment
    from convotic_celery.dead_letters.entry import DeadLetter, State
    from convotic_celery.dead_letters.index import Index
    from convotic_celery.dead_letters.jobs import Job, Journal
    from convotic_pubsub.client.inspection import Seen

__all__ = ["OnProgress", "Work"]

logger = logging.getLogger(__name__)

OnProgress: TypeAlias = Callable[["Job"], object]
#: Dead letters that were published, or are purged: without a future.
_Sent: TypeAlias = "Sequence[tuple[str, Future[str] | None]]"

_ACTIONABLE: tuple[State, ...] = ("open", "archived", "missing")
#: Dead letters that are published together, and such batches that are not confirmed and noted yet:
#: what a kill makes be published twice.
_BATCH, _UNDER_WAY = 250, 4
#: Of what is left of a job, so many ids are read at once.
_CHUNK = 5_000
#: How often a subscription is looked at whose messages a killed process still holds.
_LOOK_AGAIN_SECONDS = 2.0


class Work:
    """Does one job at a time, in the calling thread."""

    def __init__(self, deployment: Deployment, index: Index, journal: Journal) -> None:
        self._deployment = deployment
        self._index = index
        self._journal = journal
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
        stopped = threading.Event()
        threading.Thread(target=self._keep, args=(job, stopped), daemon=True).start()
        try:
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
        finally:
            stopped.set()
            self._journal.disown(job.id, self._owner)
        tell(job)
        return self._journal.read(job.id)

    def _keep(self, job: Job, stopped: threading.Event) -> None:
        """Stay the owner of a job while a batch takes its time."""
        while not stopped.wait(OWNER_SECONDS / 4):
            with contextlib.suppress(StoreUnavailable):  # the job notices by itself
                self._journal.own(job.id, self._owner)

    def _goes_on(self, job: Job) -> bool:
        answer = self._journal.own(job.id, self._owner)
        if answer == "taken":
            raise JobTaken(job.id)
        return answer != "cancelled"

    def _publish_copies(self, job: Job, tell: OnProgress) -> bool:
        """Publish what the index has copies of; False if it was cancelled."""
        left_behind, pace = 0, _Pace(job.rate)
        while ids := self._journal.take(job.id, left_behind, _CHUNK):
            with _UnderWay() as under_way:  # at its end, none of these ids is
                for some in in_batches(ids, pace.batch):
                    if not self._goes_on(job):
                        return False
                    chosen = self._sieve(job, some)
                    copies = [(d, d.edited or d.data or b"") for d in chosen if _has_copy(job, d)]
                    left_behind += len(chosen) - len(copies)
                    sent = self._send(job, copies)
                    under_way.add(lambda sent=sent: self._settle(job, sent, tell))
                    pace.wait(len(copies))
        return self._goes_on(job)

    def _sieve(self, job: Job, ids: Sequence[str]) -> list[DeadLetter]:
        """Return those that may be acted on; the others are taken off."""
        chosen = [
            dead
            for dead in self._index.read(ids)
            if dead.state in _ACTIONABLE
            and (job.action == "purge" or dead.failed_again < job.max_replays)
            and not (job.target and self._deployment.is_task_queue(dead.handler))
        ]
        kept = {dead.id for dead in chosen}
        self._journal.skip(job.id, "skipped", [each for each in ids if each not in kept])
        return chosen

    def _send(self, job: Job, what: Sequence[tuple[DeadLetter, bytes]]) -> _Sent:
        """Begin to publish these; what is purged has nothing to be published."""
        if job.action == "purge":
            return [(dead.id, None) for dead, _ in what]
        publish = self._deployment.publish
        return [(dead.id, publish(self.build(dead, data, job.target))) for dead, data in what]

    def _settle(self, job: Job, sent: _Sent, tell: OnProgress) -> list[str]:
        """Wait for confirmations, and note what is done; return its ids."""
        done: list[str] = []
        failed: list[str] = []
        for entry, future in sent:
            try:
                if future is not None:
                    future.result(self._deployment.publish_timeout_seconds)
            except Exception as error:  # noqa: BLE001 - whatever it is, this one stays where it is
                logger.error(  # noqa: TRY400 - the text is the server's answer
                    "Dead letter %s can't be published: %s",
                    entry,
                    error,
                    extra={"action": "replay_failed", "dead_letter": entry},
                )
                failed.append(entry)
            else:
                done.append(entry)
        self._journal.skip(job.id, "failed", failed)
        if done:
            self._index.move(
                done,
                to="purged" if job.action == "purge" else "replayed",
                of=_ACTIONABLE,
                action=job.action,
                by=job.by,
                detail=job.target,
                job=job.id,
            )
        tell(self._journal.read(job.id))
        return done

    def build(self, dead: DeadLetter, data: bytes, target: str = "") -> OutgoingMessage:
        """Return the message that only its handler, or ``target``, gets."""
        topic, handler, subscription = dead.topic, dead.handler, dead.subscription
        if target:
            definition = self._deployment.definition(target)
            assert definition is not None  # checked when the job began
            topic, handler, subscription = definition.topic, target, definition.subscription
        return OutgoingMessage(
            topic,
            data,
            {
                **dead.all_attributes,
                TARGET_ATTRIBUTE: handler,
                MESSAGE_ID_ATTRIBUTE: dead.message_id,
                REPLAY_TOKEN_ATTRIBUTE: self._deployment.sign(
                    handler, subscription, dead.message_id
                ),
                REPLAY_COUNT_ATTRIBUTE: str(dead.failed_again + 1),
            },
        )

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
        while ids := self._journal.take(job.id, count, _BATCH):
            count += len(ids)
            found |= {dead.handler for dead in self._index.read(ids)}
        return found

    def _collect_of(
        self, job: Job, handler: str, expected: int, tell: OnProgress, ends_at: float
    ) -> None:
        todo, pace = self._journal.todo_key(job.id), _Pace(job.rate)

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
                chosen = self._sieve(job, some)
                sent = self._send(job, [(d, d.edited or data[d.id]) for d in chosen])
                done = [ack_ids[entry] for entry in self._settle(job, sent, tell)]
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


def _has_copy(job: Job, dead: DeadLetter) -> bool:
    return job.action == "purge" or dead.edited is not None or dead.payload == "full"


class _UnderWay:
    """Batches that are under way, so many at a time; ended by one thread, in their order.

    What one of them raises is raised by the next call, or at the end.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "convotic-replay")
        self._batches: deque[Future[object]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.shutdown()
        while kind is None and self._batches:
            self._batches.popleft().result()

    def add(self, end: Callable[[], object]) -> None:
        """Have a batch ended; wait until there are few enough."""
        self._batches.append(self._thread.submit(end))
        if len(self._batches) >= _UNDER_WAY:
            self._batches.popleft().result()


class _Pace:
    """Keeps a rate, in messages a second; 0: none."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._next = time.monotonic()
        self._never = threading.Event()
        #: How many to take at once.
        self.batch = max(1, min(_BATCH, int(rate / 4))) if rate else _BATCH

    def wait(self, count: int) -> None:
        """Wait until the next batch may begin, after one of ``count``."""
        if self._rate:
            self._next = max(self._next, time.monotonic() - 1) + count / self._rate
            self.sleep(self._next - time.monotonic())

    def sleep(self, seconds: float) -> None:
        """Do nothing."""
        self._never.wait(max(0.0, seconds))
