"""Publishes dead letters again, and notes what is done: :class:`Sender`."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeAlias

from convotic_celery.runtime.delivery.attributes import (
    MESSAGE_ID_ATTRIBUTE,
    REPLAY_COUNT_ATTRIBUTE,
    REPLAY_TOKEN_ATTRIBUTE,
    TARGET_ATTRIBUTE,
)
from convotic_pubsub.errors import MessageTooLarge
from convotic_pubsub.outgoing import OutgoingMessage, failed_answer

if TYPE_CHECKING:
    from convotic_celery.dead_letters.deployment import Deployment
    from convotic_celery.dead_letters.entry import DeadLetter, State
    from convotic_celery.dead_letters.index import Index
    from convotic_celery.dead_letters.jobs import Job, Journal
    from convotic_pubsub.outgoing import Answer

__all__ = ["OnProgress", "Pace", "Sender", "Sent", "UnderWay", "data_for", "has_copy"]

logger = logging.getLogger(__name__)

OnProgress: TypeAlias = Callable[["Job"], object]
#: Dead letters that are being published, or are purged: without a future.
Sent: TypeAlias = "Sequence[tuple[str, Answer | None]]"

_ACTIONABLE: tuple[State, ...] = ("open", "archived", "missing")
#: Dead letters that are published together, and such batches that are not confirmed and noted yet:
#: what a kill makes be published twice.
_BATCH, _MOST = 250, 4


class Sender:
    """Acts on dead letters of jobs: publishes them again, or lets them go. Thread-safe."""

    def __init__(self, deployment: Deployment, index: Index, journal: Journal) -> None:
        self._deployment = deployment
        self._index = index
        self._journal = journal

    def sieve(self, job: Job, ids: Sequence[str]) -> list[DeadLetter]:
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

    def send(self, job: Job, what: Sequence[tuple[DeadLetter, bytes]]) -> Sent:
        """Begin to publish these; what is purged has nothing to be published."""
        if job.action == "purge":
            return [(dead.id, None) for dead, _ in what]
        return [
            (dead.id, self._publish(self._build(dead, data, job.target))) for dead, data in what
        ]

    def _publish(self, message: OutgoingMessage) -> Answer:
        """Begin to publish a message; one that is too large with our attributes fails alone."""
        try:
            return self._deployment.publish(message)
        except MessageTooLarge as error:
            return failed_answer(error)

    def settle(self, job: Job, sent: Sent, tell: OnProgress) -> list[str]:
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

    def _build(self, dead: DeadLetter, data: bytes, target: str = "") -> OutgoingMessage:
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


def has_copy(job: Job, dead: DeadLetter) -> bool:
    """Say whether the index has what is to be published."""
    return job.action == "purge" or dead.edited is not None or dead.payload == "full"


def data_for(dead: DeadLetter, original: bytes) -> bytes:
    """Return what is to be published: what was edited, or the original."""
    return original if dead.edited is None else dead.edited


class UnderWay:
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
        if len(self._batches) >= _MOST:
            self._batches.popleft().result()


class Pace:
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
