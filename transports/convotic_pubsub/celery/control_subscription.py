"""The one ephemeral subscription of a process on ``celery.control``, or on ``celery.events``."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from convotic_pubsub.celery.process_slots import ProcessSlot, host_name
from convotic_pubsub.errors import PubsubTransportError
from convotic_pubsub.limits import MIN_EXPIRATION_SECONDS, MIN_LEASE_SECONDS, MIN_RETENTION_SECONDS
from convotic_pubsub.names import resource_id
from convotic_pubsub.queue import Acknowledge, Decision, QueueSpec, Received

if TYPE_CHECKING:
    from convotic_pubsub.client.resources import Resources
    from convotic_pubsub.options import TransportOptions

__all__ = ["Consume", "ControlSubscription", "Swept", "Topic", "control_topic"]

logger = logging.getLogger(__name__)

#: ``control`` carries fanout, direct and anonymous exchanges, ``events`` carries topic exchanges.
Topic: TypeAlias = Literal["control", "events"]
#: Starts to pull a queue; returns what stops it.
Consume: TypeAlias = Callable[[QueueSpec], Callable[[], None]]


@dataclass(frozen=True, slots=True)
class Swept:
    """What was found on a topic of transient traffic."""

    #: Names of subscriptions whose processes are gone.
    deleted: list[str]
    #: How many belong to other hosts.
    elsewhere: int


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
            slot = ProcessSlot.take_first(self._scope)
            try:
                name = resource_id(f"{self._family}{slot.number}", self._options.prefix)
                self.spec = self._make_spec(name)
                # What a killed owner left in it (a shutdown order, say) is not for us.
                self._resources.delete(self.spec, with_topic=False)
                self._resources.ensure(self.spec, ephemeral=True)
                self._stop = self._consume(self.spec)
            except BaseException:
                slot.release()
                raise
            self._slot = slot
        try:
            self.sweep()
        except PubsubTransportError as error:  # listing may be forbidden; nothing depends on it
            logger.info(
                "Left-over control subscriptions can't be looked for: %s",
                error,
                extra={"action": "sweep_refused"},
            )

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

    @property
    def _scope(self) -> str:
        """What a slot is one of: the processes of this host that listen to the same."""
        options = self._options
        return f"{self._address()}/{options.project}/{options.prefix}/{self._topic}"

    @property
    def _family(self) -> str:
        """What the names of this host's subscriptions begin with, before the prefix."""
        return f"celery.{self._topic}.{host_name()}."

    def sweep(self) -> Swept:
        """Delete the subscriptions of processes of this host that were killed.

        Those of other hosts can't be distinguished from live ones; the service deletes them after a
        day.

        Raises:
            PubsubTransportError: they can't be listed or deleted; the topic may not exist.
        """
        topic = control_topic(self._topic, self._options.prefix)
        family = resource_id(self._family, self._options.prefix)
        deleted: list[str] = []
        elsewhere = 0
        for name in self._resources.list_subscriptions(topic):
            number = name.removeprefix(family)
            if number == name or not number.isdecimal():
                elsewhere += 1
                continue
            slot = ProcessSlot.take(self._scope, int(number))
            if slot is not None:  # its owner is gone
                self._resources.delete_subscription(name)
                slot.release()
                deleted.append(name)
        return Swept(deleted, elsewhere)

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
        except Exception as error:  # noqa: BLE001  one publisher's mistake must not stop the others
            logger.warning(
                "Message %s of %s is dropped, it can't be read: %s",
                received.message_id,
                received.subscription,
                error,
                extra={"action": "control_invalid"},
            )
        return Acknowledge("")
