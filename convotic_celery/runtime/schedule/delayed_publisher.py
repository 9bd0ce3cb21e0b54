"""Publishes delayed messages when they are due: :class:`DelayedPublisher`, a thread in each worker.

A thread of its own, so that it waits neither for a handler that blocks its event loop nor for the
worker's main loop. What it has taken is its own for a few seconds, renewed while the publish is
under way; a killed publisher's messages are taken by another one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from convotic_celery.context.records import new_token
from convotic_celery.context.scheduled import IDLE_SECONDS, LOCK_SECONDS, MAX_TAKEN_BYTES
from convotic_celery.errors import PublishRefused, StoreUnavailable, TopicHasNoSubscription
from convotic_pubsub.errors import MessageTooLarge, TopicNotFound
from convotic_pubsub.outgoing import failed_answer
from convotic_pubsub.threads import LazyThread

if TYPE_CHECKING:
    from convotic_celery.context.scheduled import ScheduledMessage
    from convotic_celery.context.services import Services
    from convotic_pubsub.outgoing import Answer

__all__ = ["DelayedPublisher"]

logger = logging.getLogger(__name__)

#: Messages taken and not yet confirmed.
MAX_UNDER_WAY = 500
_RENEWALS_A_LOCK = 3
#: How long a message that could not be published waits: 1, 2, 4, ... seconds, at most so many. Less
#: where it was not refused: the broker is only unavailable for a while.
MAX_PAUSE_REFUSED_SECONDS = 300.0
MAX_PAUSE_SECONDS = 10.0
#: Between attempts to reach an unavailable store; each takes seconds already.
STORE_AWAY_SECONDS = 1.0
#: How long an answer "no such topic" is believed, for messages that may be dropped.
MISSING_TOPIC_SECONDS = 10.0
#: How long :meth:`DelayedPublisher.stop` waits for what is under way.
STOP_SECONDS = 5.0

#: The message was not stored.
_REFUSALS = (PublishRefused, MessageTooLarge, TopicNotFound)
_NO_TOPIC = (TopicHasNoSubscription, TopicNotFound)

_Answer: TypeAlias = "tuple[ScheduledMessage, Answer]"


class DelayedPublisher:
    """Takes what is due out of the store and publishes it, until it is stopped.

    :meth:`start` and :meth:`stop` are thread-safe and idempotent; a stopped one stays so.

    Args:
        services: Whose schedule and publisher it uses.
        lock_seconds: After how long another one takes what a killed one had.
    """

    def __init__(self, services: Services, *, lock_seconds: float = LOCK_SECONDS) -> None:
        self._services = services
        self._changed = services.schedule_changed
        self._lock_seconds = lock_seconds
        self._token = f"{os.getpid()}-{new_token()}"
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = LazyThread(self._work, name="convotic-schedule")
        self._under_way: dict[str, ScheduledMessage] = {}
        #: Filled by the publisher's thread; then what has still to be written to the store.
        self._answered: deque[_Answer] = deque()
        self._unsettled: list[_Answer] = []
        self._renewed_at = 0.0
        #: Topics that are known to be missing, and until when that is believed.
        self._missing: dict[str, float] = {}
        #: Topics whose failure has been logged.
        self._troubled: set[str] = set()
        self._store_is_away = False

    @property
    def store_is_unavailable(self) -> bool:
        """Whether the store did not answer when it was asked last; that is about every second."""
        return self._store_is_away

    def start(self) -> None:
        """Start the thread."""
        with self._lock:
            if not self._stopping:
                self._thread.start()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Take nothing more, and wait up to ``seconds`` for what is being published.

        What is not confirmed by then is published again, by another worker or at the next start.
        """
        with self._lock:
            was_stopping, self._stopping = self._stopping, True
        self._changed.set()
        if not was_stopping and not self._thread.join(seconds):
            logger.warning("Delayed messages are still being published; they may be sent twice")

    def _work(self) -> None:
        while not self._stopping or self._under_way:
            self._changed.clear()
            try:
                pause = self._turn()
                self._record_store(None)
            except StoreUnavailable as error:
                self._record_store(error)
                pause = STORE_AWAY_SECONDS
            except Exception:
                logger.exception("Delayed messages could not be moved; it is tried again")
                pause = IDLE_SECONDS
            self._changed.wait(pause)

    def _turn(self) -> float:
        """Do what is to be done now; return for how many seconds nothing is, but for events."""
        self._settle()
        self._renew()
        if self._stopping and not self._under_way:
            return 0.0
        if self._stopping or self._has_enough():
            return min(IDLE_SECONDS, self._renewal_interval)
        due = self._services.sync_schedule.take_due(
            self._token,
            limit=MAX_UNDER_WAY - len(self._under_way),
            lock_seconds=self._lock_seconds,
        )
        if due.messages and not self._under_way:
            self._renewed_at = time.monotonic()
        for message in due.messages:
            self._under_way[message.id] = message
            self._publish(message)
        pause = IDLE_SECONDS if due.next_due_seconds is None else due.next_due_seconds
        return min(pause, self._renewal_interval) if self._under_way else pause

    def _has_enough(self) -> bool:
        size = sum(len(message.message.data) for message in self._under_way.values())
        return len(self._under_way) >= MAX_UNDER_WAY or size >= MAX_TAKEN_BYTES

    @property
    def _renewal_interval(self) -> float:
        return self._lock_seconds / _RENEWALS_A_LOCK

    def _publish(self, message: ScheduledMessage) -> None:
        outgoing = message.message
        future: Answer
        if message.is_optional and self._missing.get(outgoing.topic, 0.0) > time.monotonic():
            future = failed_answer(TopicHasNoSubscription(outgoing.topic))
        else:
            try:
                future = self._services.publisher.publish(outgoing)
            except Exception as error:  # noqa: BLE001 - as if the future had it
                future = failed_answer(error)
        future.add_done_callback(partial(self._record_answer, message))

    def _record_answer(self, message: ScheduledMessage, future: Answer) -> None:
        self._answered.append((message, future))
        self._changed.set()

    def _settle(self) -> None:
        """Write to the store what became of messages; what fails is written again later."""
        published: list[str] = []
        failed: list[tuple[ScheduledMessage, BaseException]] = []
        while self._answered:
            self._unsettled.append(self._answered.popleft())
        for message, future in self._unsettled:
            error = future.exception()
            if error is None or (message.is_optional and isinstance(error, _NO_TOPIC)):
                self._record_topic(message, error)
                published.append(message.id)
            else:
                failed.append((message, error))
        if published:
            self._services.sync_schedule.settle(published)
        for message, error in failed:
            self._postpone(message, error)
        for message, _ in self._unsettled:
            del self._under_way[message.id]
        self._unsettled.clear()

    def _postpone(self, message: ScheduledMessage, error: BaseException) -> None:
        is_refused = isinstance(error, _REFUSALS)
        longest = MAX_PAUSE_REFUSED_SECONDS if is_refused else MAX_PAUSE_SECONDS
        pause = min(longest, 2.0 ** min(message.failures, 30))
        topic = message.message.topic
        if topic not in self._troubled:
            self._troubled.add(topic)
            logger.log(
                logging.ERROR if is_refused else logging.WARNING,
                "The delayed message %s to %s could not be published: %s: %s. It is kept and tried "
                "again, after %d seconds at most, until it is published, or cancelled with "
                "pubsub.cancel(%r). Further ones to this topic are not logged.",
                message.id,
                topic,
                type(error).__name__,
                error,
                longest,
                message.id,
            )
        self._services.sync_schedule.postpone(self._token, message, pause, is_certain=is_refused)

    def _record_topic(self, message: ScheduledMessage, error: BaseException | None) -> None:
        topic = message.message.topic
        if error is None:
            if topic in self._troubled:
                self._troubled.discard(topic)
                logger.info("Delayed messages to %s are published again", topic)
            return
        if topic not in self._missing:
            logger.info("Nothing is announced on %s: there is no such topic", topic)
        self._missing[topic] = time.monotonic() + MISSING_TOPIC_SECONDS

    def _renew(self) -> None:
        if self._under_way and time.monotonic() >= self._renewed_at + self._renewal_interval:
            self._services.sync_schedule.renew(
                self._token, self._under_way, lock_seconds=self._lock_seconds
            )
            self._renewed_at = time.monotonic()

    def _record_store(self, error: StoreUnavailable | None) -> None:
        if error is not None and not self._store_is_away:
            logger.warning("Delayed messages wait: %s", error)
        elif error is None and self._store_is_away:
            logger.info("The store is back; delayed messages are published again")
        self._store_is_away = error is not None
