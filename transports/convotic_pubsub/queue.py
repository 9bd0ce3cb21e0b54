"""What a kombu queue is on Pub/Sub: one topic, one subscription, and the policy for its messages.

This is the seam between the transport and what runs tasks on it. The transport owns leases,
flow control and settlement; a :class:`DeliveryPolicy` owns what a message *means* (Celery headers,
attempt counting, attributes of its own). Pure: no I/O, no clock, no threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

from convotic_pubsub.limits import MAX_RETENTION_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "RAW_CONTENT_TYPE",
    "Acknowledge",
    "DeadLetter",
    "DeadLetterListener",
    "Decision",
    "Defer",
    "Deliver",
    "DeliveryPolicy",
    "Lapse",
    "PayloadDict",
    "QueueSpec",
    "Received",
    "Return",
    "SendAgain",
    "Settlement",
    "read_message",
]

#: A kombu message as ``virtual.Message`` takes it:
#: ``{"body": b"...", "content-type": "application/json", "content-encoding": "utf-8",
#: "headers": {...}, "properties": {"delivery_info": {...}, "priority": 0, ...}}``.
#: The transport adds ``properties["delivery_tag"]``.
PayloadDict: TypeAlias = dict[str, Any]

#: The content type of what a policy delivers as it is: data that no envelope surrounds, in bytes,
#: which kombu neither decodes nor decompresses.
RAW_CONTENT_TYPE: Final = "application/x-pubsub-raw"


class Received(NamedTuple):  # a tuple is made in a third of the time of a frozen dataclass
    """One delivery of one message, as Pub/Sub handed it over."""

    #: Short name of the subscription that delivered it.
    subscription: str
    #: Pub/Sub's message id: the same for every redelivery; a dead letter has another.
    message_id: str
    data: bytes
    #: All attributes as sent, the framework's own included.
    attributes: Mapping[str, str]
    ordering_key: str
    #: Timezone-aware, UTC.
    published_at: datetime
    #: 1 on the first delivery; 0 where the service does not count (no dead-letter policy).
    delivery_attempt: int
    #: Known to have been delivered before: the service counts, or this process has returned it.
    redelivered: bool = False


def read_message(subscription: str, raw: Any, *, redelivered: bool) -> Received:
    """Return what a ``ReceivedMessage`` of the API says."""
    message = raw.message
    published, attributes = message.publish_time, message.attributes
    return Received(  # by position, which is faster
        subscription,
        message.message_id,
        message.data,
        dict(attributes.items()) if attributes else {},  # twice as fast as without items()
        message.ordering_key,
        datetime.fromtimestamp(published.seconds + published.nanos / 1e9, UTC),
        raw.delivery_attempt,
        redelivered,
    )


@dataclass(slots=True)  # not frozen: one is made for each message
class Deliver:
    """Hand the message to the consumer as this kombu payload."""

    payload: PayloadDict


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Acknowledge. ``reason`` says why a message was not run; it is logged, unless it is ""."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Publish to the dead-letter topic with these attributes *added*, then acknowledge.

    ``attributes`` is ordered by importance: what does not fit the service's limits (100 attributes,
    10,000,000 bytes) is left off from the end. Names must not collide with the user's.
    """

    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Defer:
    """Don't run it now: let the lease end in ``delay_seconds`` (at least 1)."""

    delay_seconds: float


@dataclass(frozen=True, slots=True)
class SendAgain:
    """Publish it once more to its own topic, then acknowledge: its deliveries count from one.

    For what was delivered often and has not run: the service would dead-letter it.
    """


@dataclass(frozen=True, slots=True)
class Lapse:
    """Don't acknowledge a run: the lease ends in ``delay_seconds`` (at least 1); redelivery."""

    delay_seconds: float


@dataclass(frozen=True, slots=True)
class Return:
    """Nack: for delivery now."""


#: What a policy may decide about a delivery.
Decision: TypeAlias = Deliver | Acknowledge | DeadLetter | Defer | SendAgain
#: How a delivered message can be settled.
Settlement: TypeAlias = Acknowledge | DeadLetter | Defer | SendAgain | Lapse | Return


class DeliveryPolicy(Protocol):
    """What the owner of a queue decides about its messages. One instance serves one queue."""

    def decide(self, received: Received) -> Decision:
        """Say what becomes of a delivery. Pure and fast: runs on the I/O thread for each message.

        A raised exception is logged and dead-letters the message, as ``invalid``.
        """
        ...


#: Told of a dead letter once it is confirmed: the message, all attributes of the copy, and the id
#: of the copy. On the I/O thread: it must be fast. What it raises is logged.
DeadLetterListener: TypeAlias = "Callable[[Received, Mapping[str, str], str], object]"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """A kombu queue bound to a topic. Names are short names; units are in the fields' names."""

    #: kombu's queue name.
    queue: str
    topic: str
    subscription: str
    policy: DeliveryPolicy
    #: Pub/Sub filter expression, at most 256 bytes; "" for none.
    filter: str = ""
    #: Topic, and subscription of the same name, that keep dead letters. "" for none.
    dead_letter_topic: str = ""
    #: For the subscription's DeadLetterPolicy, 5..100; 0: no policy, and no delivery counts.
    max_delivery_attempts: int = 0
    #: The lease of a running message, 1..86,400 s. The subscription's is this, clamped to 10..600.
    ack_deadline_seconds: float = 30.0
    #: None: a message that waits here is held at most ``ack_deadline_seconds`` and a running one as
    #: long as its consumer said. A number: held as long as it is unsettled, at most this long.
    max_lease_seconds: float | None = None
    #: Messages handed to the consumer at a time (running), per process.
    concurrency: int = 1
    #: Messages kept ready beyond ``concurrency``, per process. None: as many as the handler works
    #: through while the server sends more, both measured; at least one, at most a second's work.
    buffer_messages: int | None = 1
    #: Bytes of ``data`` in this process, running messages included.
    buffer_bytes: int = 16 * 1024 * 1024
    #: Failed messages whose lease we wait for; beyond this many the queue stops pulling.
    max_waiting_retries: int = 100
    message_retention_seconds: int = 7 * 24 * 3600
    #: Of the dead-letter subscription.
    dead_letter_retention_seconds: int = MAX_RETENTION_SECONDS
    #: The subscription is deleted by the service when unused this long; 0: never. At least a day.
    expiration_seconds: int = 0
    enable_message_ordering: bool = False
    enable_exactly_once_delivery: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    on_dead_letter: DeadLetterListener | None = None

    def __repr__(self) -> str:
        # kombu hashes a connection by the repr of its options, for each publish.
        return f"QueueSpec({self.queue!r})"
