"""The one ephemeral subscription of a process on ``celery.control``, or on ``celery.events``."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

from convotic_pubsub.celery.process_slots import ProcessSlot, host_name
from convotic_pubsub.errors import PubsubTransportError
from convotic_pubsub.limits import MIN_EXPIRATION_SECONDS, MIN_LEASE_SECONDS, MIN_RETENTION_SECONDS
from convotic_pubsub.names import resource_id
from convotic_pubsub.queue import Acknowledge, Decision, QueueSpec, Received

if TYPE_CHECKING:
    from convotic_pubsub.client.resources import Resources
    from convotic_pubsub.options import TransportOptions

__all__ = ["Consume", "ControlSubscription", "Topic", "control_topic"]

logger = logging.getLogger(__name__)

#: ``control`` carries fanout, direct and anonymous exchanges, ``events`` carries topic exchanges.
Topic: TypeAlias = Literal["control", "events"]
#: Starts to pull a queue; returns what stops it.
Consume: TypeAlias = Callable[[QueueSpec], Callable[[], None]]


def control_topic(topic: Topic, prefix: str) -> str:
    """Return the id of a topic that carries transient traffic."""
    return resource_id(f"celery.{topic}", prefix)


class ControlSubscription:
    """Receives what one of the topics carries, once something here needs it. Thread-safe.

    Args:
        topic: which.
        options: the project and the prefix.
        resources: creates and deletes the subscription.
        address: returns the server's address.
        consume: pulls it.
        receive: called on the I/O thread with each message; ValueError drops one.
    """

    def __init__(
        self,
        topic: Topic,
        options: TransportOptions,
        resources: Resources,
        *,
        address: Callable[[], str],
        consume: Consume,
        receive: Callable[[Received], None],
    ) -> None:
        self._topic: Topic = topic
        self._options = options
        self._resources = resources
        self._address = address
        self._consume = consume
        self._policy = _ControlPolicy(receive)
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None
        self._slot: ProcessSlot | None = None
        self.spec: QueueSpec | None = None

    def open(self) -> None:
        """Make the subscription, once.

        Raises:
            PubsubTransportError: it can't be made.
        """
        with self._lock:
            if self._stop is not None:
                return
            prefix = self._options.prefix
            scope = f"{self._address()}/{self._options.project}/{prefix}/{self._topic}"
            family = f"celery.{self._topic}.{host_name()}."
            slot = ProcessSlot.take_first(scope)
            try:
                self.spec = self._make_spec(resource_id(f"{family}{slot.number}", prefix))
                # What a killed owner left in it (a shutdown order, say) is not for us.
                self._resources.delete(self.spec, with_topic=False)
                self._resources.ensure(self.spec, ephemeral=True)
                self._stop = self._consume(self.spec)
            except BaseException:
                slot.release()
                raise
            self._slot = slot
        self._sweep(scope, resource_id(family, prefix))

    def _make_spec(self, name: str) -> QueueSpec:
        return QueueSpec(
            queue=name,
            topic=control_topic(self._topic, self._options.prefix),
            subscription=name,
            policy=self._policy,
            ack_deadline_seconds=MIN_LEASE_SECONDS,
            concurrency=1000,
            buffer_messages=0,
            message_retention_seconds=MIN_RETENTION_SECONDS,
            expiration_seconds=MIN_EXPIRATION_SECONDS,
            labels={"convotic": "ephemeral"},
        )

    def _sweep(self, scope: str, family: str) -> None:
        """Delete the subscriptions of processes of this host that were killed.

        Those of other hosts can't be told from live ones; the service deletes them after a day.
        """
        try:
            names = self._resources.list_subscriptions(
                control_topic(self._topic, self._options.prefix)
            )
        except PubsubTransportError as error:  # listing may be forbidden; nothing depends on it
            logger.info(
                "Left-over control subscriptions can't be looked for: %s",
                error,
                extra={"action": "sweep_refused"},
            )
            return
        for name in names:
            number = name.removeprefix(family)
            if number == name or not number.isdecimal():
                continue
            slot = ProcessSlot.take(scope, int(number))
            if slot is not None:  # its owner is gone
                self._resources.delete_subscription(name)
                slot.release()

    def forked(self) -> None:
        """Let go, in a forked child, of the lock that keeps the parent's slot."""
        self._lock = threading.Lock()
        if self._slot is not None:
            self._slot.release()
            self._slot = None

    def close(self) -> None:
        """Delete the subscription. Idempotent."""
        with self._lock:
            stop, self._stop = self._stop, None
            if stop is None or self.spec is None or self._slot is None:
                return
            stop()
            try:
                self._resources.delete(self.spec, with_topic=False)
            except PubsubTransportError as error:
                logger.info(
                    "Control subscription %s could not be deleted; the next process that starts on "
                    "this host does it: %s",
                    self.spec.subscription,
                    error,
                    extra={"action": "control_left_behind"},
                )
            self._slot.release()


class _ControlPolicy:
    """Passes each message on where it is received; nothing is ever run, retried or kept."""

    def __init__(self, receive: Callable[[Received], None]) -> None:
        self._receive = receive

    def decide(self, received: Received) -> Decision:
        """Pass the message on; one that can't be read is logged and dropped."""
        try:
            self._receive(received)
        except Exception as error:  # noqa: BLE001  a publisher's mistake must cost nobody else
            logger.warning(
                "Message %s of %s is dropped, it can't be read: %s",
                received.message_id,
                received.subscription,
                error,
                extra={"action": "control_invalid"},
            )
        return Acknowledge("")
