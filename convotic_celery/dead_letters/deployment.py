"""What the tools need of the app that made them: :class:`Deployment`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convotic_celery.dead_letters.entry import DeadLetter, PayloadMode, from_message
from convotic_celery.errors import InvalidMessage
from convotic_celery.runtime.delivery.attributes import MESSAGE_ID_ATTRIBUTE
from convotic_celery.runtime.delivery.steps import drive_sync
from convotic_pubsub.celery.codec import decode_envelope

if TYPE_CHECKING:
    from convotic_celery.context.database import SyncDatabase
    from convotic_celery.runtime.delivery.replays import ReplayTokens
    from convotic_celery.runtime.delivery.steps import Ask
    from convotic_celery.sdk.handler import HandlerDefinition
    from convotic_pubsub.outgoing import Answer, OutgoingMessage
    from convotic_pubsub.queue import QueueSpec, Received
    from convotic_pubsub.session import Session

__all__ = ["Deployment"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """Handlers, their resources, and the ways to Pub/Sub and the store. Thread-safe."""

    definitions: Iterable[HandlerDefinition]
    #: By queue; those of ordinary tasks too.
    specs: Callable[[], Mapping[str, QueueSpec]]
    #: Connects on first use.
    session: Callable[[], Session]
    #: Sends a message to a topic, without the prefix, together with others.
    publish: Callable[[OutgoingMessage], Answer]
    database: SyncDatabase
    tokens: ReplayTokens
    payload: PayloadMode = "full"
    publish_timeout_seconds: float = 60.0

    def definition(self, handler: str) -> HandlerDefinition | None:
        """Return a handler by its queue; None if its module is not loaded here."""
        return next((d for d in self.definitions if d.queue == handler), None)

    def dead_letter_subscription(self, handler: str) -> str:
        """Return the subscription that keeps a handler's dead letters; "" if it is not known."""
        spec = self.specs().get(handler)
        return "" if spec is None else spec.dead_letter_topic.rsplit("/", 1)[-1]

    def read(self, received: Received, handler: str) -> DeadLetter:
        """Return what a message in the dead-letter subscription of ``handler`` is."""
        attributes = received.attributes
        source = attributes.get("convotic-dead-letter-subscription", "") or attributes.get(
            "CloudPubSubDeadLetterSourceSubscription", ""
        )
        if source and source != handler:  # two handlers may share a dead-letter topic
            for definition in self.definitions:
                spec = self.specs()[definition.queue]
                if source in (definition.subscription, spec.subscription):
                    handler = definition.queue
                    break
        return self.read_of(handler, received, received.attributes, received.message_id)

    def read_of(
        self, handler: str, received: Received, attributes: Mapping[str, str], message_id: str
    ) -> DeadLetter:
        """Return what a dead letter of a handler is that has these attributes and this id."""
        definition = self.definition(handler)
        if definition is not None:
            topic = definition.topic
        elif handler in (specs := self.specs()):
            topic, attributes = specs[handler].topic, _describe_task(received.data, attributes)
        else:  # its module is not loaded here
            topic = attributes.get("convotic-dead-letter-topic", "")
        return from_message(
            handler,
            topic,
            received.data,
            attributes,
            message_id,
            received.published_at,
            self.payload,
        )

    def is_task_queue(self, queue: str) -> bool:
        """Say whether a queue is one of ordinary tasks."""
        return self.definition(queue) is None and queue in self.specs()

    def check_data(self, queue: str, data: bytes) -> None:
        """Raise InvalidMessage for data that nobody can read who consumes a queue."""
        definition = self.definition(queue)
        try:
            if definition is not None:
                definition.decode_data(data)
            elif self.is_task_queue(queue):
                decode_envelope(data)
        except ValueError as error:
            raise InvalidMessage(f"no task message: {error}") from None

    def sign(self, handler: str, subscription: str, message_id: str) -> str:
        """Return the token that shows that a replay is one."""
        definition = self.definition(handler)
        name = subscription if definition is None else definition.subscription
        return drive_sync(self.tokens.sign(name, message_id), _Doer(self.database))


def _describe_task(data: bytes, attributes: Mapping[str, str]) -> Mapping[str, str]:
    """Return the attributes of an ordinary task's dead letter, with what its envelope says.

    A task that was rejected has no error: its name stands for it, and makes the group. The id of
    its first publish is the one that a replay carries.
    """
    prefix = "convotic-dead-letter-"
    found = dict(attributes)
    with contextlib.suppress(ValueError, KeyError):
        task = decode_envelope(data)["headers"]["task"]
        found.setdefault(f"{prefix}error-message", f"task {task}")
    if first_id := attributes.get(MESSAGE_ID_ATTRIBUTE):
        found[f"{prefix}message-id"] = first_id
    return found


class _Doer:
    """Does the steps of a token: it asks the store for a key, once."""

    def __init__(self, database: SyncDatabase) -> None:
        self._database = database

    def do_sync(self, step: Ask) -> Any:
        return self._database.run(step.script, step.keys, *step.arguments)
