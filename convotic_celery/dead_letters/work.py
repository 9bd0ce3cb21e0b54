"""Does jobs, and looks through dead-letter subscriptions: :class:`Work`.

A job has two parts. First what is chosen is *published*, from the copies in the index; each is
moved to "replayed" in the step that takes it off the journal. Then it is *collected*: the
dead-letter subscription is pulled, what is done with is acknowledged, and what the index has no
copy of is published from there. A process that dies in between loses nothing: the journal says what
is left, and the message waits in its subscription until it is acknowledged.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from convotic_celery.dead_letters.jobs import OWNER_SECONDS
from convotic_celery.dead_letters.match import Match
from convotic_celery.errors import JobTaken, StoreUnavailable
from convotic_celery.runtime.delivery.attributes import (
    MESSAGE_ID_ATTRIBUTE,
    REPLAY_COUNT_ATTRIBUTE,
    REPLAY_TOKEN_ATTRIBUTE,
    TARGET_ATTRIBUTE,
)
from convotic_pubsub.outgoing import OutgoingMessage

if TYPE_CHECKING:
    from concurrent.futures import Future

    from convotic_celery.dead_letters.deployment import Deployment
    from convotic_celery.dead_letters.entry import DeadLetter, State
    from convotic_celery.dead_letters.index import Index
    from convotic_celery.dead_letters.jobs import Job, Journal
    from convotic_pubsub.client.inspection import Seen

__all__ = ["OnProgress", "SyncReport", "Work"]

logger = logging.getLogger(__name__)

OnProgress: TypeAlias = Callable[["Job"], object]

_ACTIONABLE: tuple[State, ...] = ("open", "archived", "missing")
_BATCH = 250
_PULL = 1_000
#: Pulls without an answer until a subscription counts as empty.
_EMPTY_PULLS = 2


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync has found in the dead-letter subscription of a handler."""

    handler: str
    #: Messages that it was handed.
    seen: int
    #: Of these, without an entry before.
    taken_in: int
    #: Of these, replayed or purged before, and acknowledged now.
    acknowledged: int
    #: Entries whose message is not there.
    missing: int
    #: False if others held messages, so that nothing can be said of the rest.
    is_complete: bool


class Work:
    """Does one job at a time, in the calling thread."""

    def __init__(self, deployment: Deployment, index: Index, journal: Journal) -> None:
        self._deployment = deployment
        self._index = index
        self._journal = journal
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
            self._collect(job, tell)
            job = self._journal.set_state(job, "done")
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
        behind, pace = 0, _Pace(job.rate)
        size = max(1, min(_BATCH, int(job.rate / 4))) if job.rate else _BATCH
        while self._goes_on(job):
            ids = self._journal.take(job.id, behind, size)
            if not ids:
                return True
            chosen = self._sieve(job, ids)
            copies = [d for d in chosen if job.action == "purge" or d.edited or d.payload == "full"]
            behind += len(chosen) - len(copies)
            self._act(job, [(dead, dead.edited or dead.data or b"") for dead in copies])
            tell(self._journal.read(job.id))
            pace.wait(len(copies))
        return False

    def _sieve(self, job: Job, ids: Sequence[str]) -> list[DeadLetter]:
        """Return those that may be acted on; the others are taken off."""
        chosen = [
            dead
            for dead in self._index.read(ids)
            if dead.state in _ACTIONABLE
            and (job.action == "purge" or dead.failed_again < job.max_replays)
        ]
        kept = {dead.id for dead in chosen}
        self._journal.skip(job.id, "skipped", [each for each in ids if each not in kept])
        return chosen

    def _act(self, job: Job, what: Sequence[tuple[DeadLetter, bytes]]) -> list[str]:
        """Publish again, or purge; return the ids of what is done."""
        if job.action == "purge":
            done, failed = [dead.id for dead, _ in what], list[str]()
        else:
            done, failed = self._publish(job, what)
        self._journal.skip(job.id, "failed", failed)
        if done:
            to: State = "purged" if job.action == "purge" else "replayed"
            self._index.move(
                done,
                to=to,
                of=_ACTIONABLE,
                action=job.action,
                by=job.by,
                detail=job.target,
                job=job.id,
            )
        return done

    def _publish(
        self, job: Job, what: Sequence[tuple[DeadLetter, bytes]]
    ) -> tuple[list[str], list[str]]:
        sent: list[tuple[DeadLetter, Future[str]]] = []
        for dead, data in what:
            message = self.build(dead, data, job.target)
            sent.append((dead, self._deployment.publish(message)))
        done, failed = [], []
        for dead, future in sent:
            try:
                future.result(self._deployment.publish_timeout_seconds)
            except Exception as error:  # noqa: BLE001 - whatever it is, this one stays where it is
                logger.error(  # noqa: TRY400 - the text is the server's answer
                    "Dead letter %s of %s can't be published: %s",
                    dead.id,
                    dead.handler,
                    error,
                    extra={"action": "replay_failed", "handler": dead.handler},
                )
                failed.append(dead.id)
            else:
                done.append(dead.id)
        return done, failed

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

    def _collect(self, job: Job, tell: OnProgress) -> None:
        """Acknowledge what is done with, and act on what the index has no copy of."""
        expected = self._journal.handlers(job.id)
        left = {dead.handler for dead in self._index.read(self._journal.take(job.id, 0, 100_000))}
        for handler in sorted({h for h, n in expected.items() if n > 0} | left):
            self._collect_of(job, handler, expected.get(handler, 0), tell)
        self._journal.skip(job.id, "not_found", self._journal.take(job.id, 0, 1_000_000))

    def _collect_of(self, job: Job, handler: str, expected: int, tell: OnProgress) -> None:
        todo = self._journal.todo_key(job.id)

        def look(seen: Sequence[Seen], dead: Sequence[DeadLetter]) -> list[str]:
            nonlocal expected
            decided = self._index.decide(dead, todo=todo)
            pairs = list(zip(seen, dead, strict=True))
            stale = [s.ack_id for (s, _), w in zip(pairs, decided, strict=True) if w == "stale"]
            mine = [pair for pair, what in zip(pairs, decided, strict=True) if what == "todo"]
            found = self._sieve(job, [d.id for _, d in mine])
            allowed = {each.id: each for each in found}
            acted = self._act(
                job,
                [
                    (allowed[d.id], allowed[d.id].edited or s.received.data)
                    for s, d in mine
                    if d.id in allowed
                ],
            )
            done = stale + [s.ack_id for s, d in mine if d.id in acted]
            expected -= len(stale)
            self._journal.count(job.id, f"got:{handler}", len(done))
            self._journal.count(job.id, "collected", len(done))
            tell(self._journal.read(job.id))
            return done

        def goes_on() -> bool:
            has_more = expected > 0 or bool(self._journal.take(job.id, 0, 1))
            return has_more and self._goes_on(job)

        self._look_through(handler, look, goes_on)

    def _look_through(
        self,
        handler: str,
        look: Callable[[Sequence[Seen], Sequence[DeadLetter]], list[str]],
        goes_on: Callable[[], bool],
    ) -> tuple[int, bool]:
        """Pull a handler's dead letters, ack what ``look`` says; how many, and whether all.

        What is not acknowledged is held until the end, so that it is seen once.
        """
        name = self._deployment.dead_letter_subscription(handler)
        if not name:
            return 0, False
        session = self._deployment.session()
        count, empty = 0, 0
        most = 1 if session.broker.is_emulated else _EMPTY_PULLS
        with session.resources.inspect(name) as inspection:
            while goes_on() and empty < most:
                seen = inspection.pull(_PULL)
                empty = 0 if seen else empty + 1
                if seen:
                    count += len(seen)
                    dead = [self._deployment.read(each.received, handler) for each in seen]
                    inspection.acknowledge(look(seen, dead))
            is_complete = empty >= most
            if is_complete:
                size = session.resources.backlog_sizes([name]).get(name)
                if size is not None and not size.figures_age_seconds:
                    is_complete = size.messages <= inspection.held
        return count, is_complete

    # -- sync -------------------------------------------------------------------------------------

    def sync(self, handler: str) -> SyncReport:
        """Bring the index and the dead-letter subscription of a handler in line."""
        mark, started = secrets.token_hex(4), self._index.now()
        taken_in = acknowledged = 0

        def look(seen: Sequence[Seen], dead: Sequence[DeadLetter]) -> list[str]:
            nonlocal taken_in, acknowledged
            decided = self._index.decide(dead, mark=mark)
            unknown = [d for d, what in zip(dead, decided, strict=True) if what == "unknown"]
            if unknown:
                recorded = self._index.record(unknown)
                taken_in += sum(each.what in ("new", "again") for each in recorded)
                self._index.decide(unknown, mark=mark)
            stale = [s.ack_id for s, w in zip(seen, decided, strict=True) if w == "stale"]
            acknowledged += len(stale)
            return stale

        seen, is_complete = self._look_through(handler, look, lambda: True)
        missing = 0
        if is_complete:
            age = (self._index.now() - started).total_seconds()
            match = Match(handler=handler, older_than=max(0.0, age))
            ids = [each.id for each in self._index.each(match)]
            missing = self._index.mark_missing(ids, handler, mark)
        return SyncReport(handler, seen, taken_in, acknowledged, missing, is_complete)

    def sample(self, handlers: Sequence[str], limit: int) -> list[DeadLetter]:
        """Return some dead letters as Pub/Sub hands them out; they are given back."""
        found: list[DeadLetter] = []
        for handler in handlers:
            name = self._deployment.dead_letter_subscription(handler)
            if name and len(found) < limit:
                with self._deployment.session().resources.inspect(name) as inspection:
                    seen = inspection.pull(limit - len(found))
                    found += [self._deployment.read(each.received, handler) for each in seen]
        return sorted(found, key=lambda dead: dead.dead_lettered_at, reverse=True)


class _Pace:
    """Keeps a rate."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._next = time.monotonic()
        self._never = threading.Event()

    def wait(self, count: int) -> None:
        """Wait until the next batch may begin, after one of ``count``."""
        if self._rate:
            self._next = max(self._next, time.monotonic() - 1) + count / self._rate
            self._never.wait(max(0.0, self._next - time.monotonic()))
