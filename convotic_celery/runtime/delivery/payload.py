"""How a raw Pub/Sub message looks to Celery: made-up headers, its data untouched as the body.

Example of what a worker's Celery gets for one message::

    body              b'{"id": 1, "customer_id": "c-1"}'     (b"null" stands for "no data")
    content-type      application/x-pubsub-raw
    headers           task, id, root_id, parent_id, retries, argsrepr, … as Celery's protocol 2 has
    them headers.convotic  {"message_id": "11", "pubsub_id": "11", "attributes": {"source": "api"},
                       "ordering_key": "", "published_at": datetime(2026, 11, 23, 20, tzinfo=UTC),
                       "attempt": 1, "delivery_attempt": 1, "replay_count": 0, "empty": False,
                       "trace": {}}

The data is *not* parsed here, nor by the worker's main loop: a message that is not JSON must fail
as a task does, in the pool, with its own dead letter and state.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha1
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from kombu.serialization import register

from convotic_celery.runtime.delivery.attributes import (
    MESSAGE_ID_ATTRIBUTE,
    REPLAY_TOKEN_ATTRIBUTE,
    replay_count,
    trace_attributes,
    user_attributes,
)
from convotic_celery.runtime.delivery.replays import Claim
from convotic_pubsub.queue import RAW_CONTENT_TYPE

if TYPE_CHECKING:
    from convotic_pubsub.queue import PayloadDict, Received

__all__ = [
    "CONTENT_TYPE",
    "SERIALIZER",
    "MessageFacts",
    "PayloadBuilder",
    "as_task_body",
    "read_claim",
    "read_facts",
    "register_serializer",
    "task_id_of",
    "unknown_facts",
]

CONTENT_TYPE = RAW_CONTENT_TYPE

#: Its name in Celery's ``accept_content``.
SERIALIZER = "convotic-raw"

#: Any fixed UUID serves; it keeps our ids apart from other uuid5 ids.
_NAMESPACE = uuid.UUID("6f8f8f0e-6a55-5d0a-9d5b-0c1c2f6a7e11").bytes
#: What a UUID's variant makes of the digit in its position.
_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

#: Characters of the data that events, Flower and ``inspect`` show.
MAX_SHOWN_CHARACTERS = 200

#: Celery refuses an empty body; for JSON, this is the same.
_NO_DATA = b"null"


class MessageFacts(TypedDict):
    """The header ``convotic``: what Pub/Sub said about a message. It crosses processes."""

    #: A replay's run sets the first publish's, and ``replay_count``, once its claim is checked.
    message_id: str
    #: Of this publish.
    pubsub_id: str
    attributes: dict[str, str]
    ordering_key: str
    published_at: datetime
    #: As far as it is known; a redelivery's run asks the store and corrects it.
    attempt: int
    #: How often Pub/Sub says it has delivered the message; 0 where it does not count.
    delivery_attempt: int
    replay_count: int
    #: True if there was no data at all.
    empty: bool
    #: W3C trace context of the publisher, if it sent one.
    trace: dict[str, str]
    #: That it is a replay of another message; any publisher can claim that.
    claim: NotRequired[Claim]
    #: The run's name in the store; only a redelivery has one.
    run: NotRequired[str]


def register_serializer() -> None:
    """Make kombu hand over the body as it is, as a task's single argument. Idempotent."""
    register(SERIALIZER, _refuse_encoding, as_task_body, CONTENT_TYPE, "binary")


def _refuse_encoding(value: Any) -> Any:
    raise TypeError(f"{CONTENT_TYPE} is read only: publish raw messages instead of {type(value)}")


def as_task_body(body: Any) -> tuple[list[bytes], dict[str, Any], dict[str, Any]]:
    """Return Celery's (args, kwargs, embed) with the raw data as the only argument."""
    return [bytes(body)], {}, {}


def task_id_of(subscription: str, message_id: str) -> str:
    """Return the id of the task that runs this message: the same for every redelivery."""
    # uuid.uuid5, at a quarter of its time.
    sha = _sha_of(subscription).copy()
    sha.update(message_id.encode())
    digest = sha.hexdigest()
    variant = _VARIANTS[digest[16]]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


@cache
def _sha_of(subscription: str) -> Any:
    """Return the hash of what the ids of a subscription's tasks begin with."""
    return sha1(_NAMESPACE + f"{subscription}/".encode(), usedforsecurity=False)


def read_claim(attributes: Mapping[str, str]) -> Claim | None:
    """Return what a message claims to be a replay of; None if it claims nothing."""
    message_id = attributes.get(MESSAGE_ID_ATTRIBUTE)
    if not message_id:
        return None
    return Claim(message_id, replay_count(attributes), attributes.get(REPLAY_TOKEN_ATTRIBUTE, ""))


def read_facts(received: Received, attempt: int = 1) -> MessageFacts:
    """Return what Pub/Sub said about a delivery."""
    attributes, message_id = received.attributes, received.message_id
    return {
        "message_id": message_id,
        "pubsub_id": message_id,
        "attributes": user_attributes(attributes) if attributes else {},
        "ordering_key": received.ordering_key,
        "published_at": received.published_at,
        "attempt": attempt,
        "delivery_attempt": received.delivery_attempt,
        "replay_count": 0,
        "empty": not received.data,
        "trace": trace_attributes(attributes) if attributes else {},
    }


def unknown_facts(message_id: str) -> MessageFacts:
    """Return the facts of a message of which Pub/Sub has said nothing, published now.

    It came in Celery's own envelope, or the handler is called directly.
    """
    return {
        "message_id": message_id,
        "pubsub_id": message_id,
        "attributes": {},
        "ordering_key": "",
        "published_at": datetime.now(UTC),
        "attempt": 1,
        "delivery_attempt": 0,
        "replay_count": 0,
        "empty": False,
        "trace": {},
    }


@dataclass(frozen=True, slots=True)
class PayloadBuilder:
    """Builds Celery's view of one queue's messages. Thread-safe, and as little work as possible."""

    queue: str
    subscription: str
    #: The process that makes the headers; Celery's ``origin``.
    origin: str

    @classmethod
    def for_queue(cls, queue: str, subscription: str) -> PayloadBuilder:
        """Return a builder that names this process as the origin."""
        return cls(queue, subscription, f"pubsub{os.getpid()}@{socket.gethostname()}")

    def build(self, received: Received, *, attempt: int = 1, run: str = "") -> PayloadDict:
        """Return the kombu payload of a delivery; a redelivery's ``run`` has a name."""
        claim = read_claim(received.attributes) if received.attributes else None
        task_id = task_id_of(self.subscription, received.message_id)
        root_id = task_id_of(self.subscription, claim.message_id) if claim else task_id
        facts = read_facts(received, attempt)
        if claim is not None:
            facts["claim"] = claim
        if run:
            facts["run"] = run
        return {
            "body": received.data or _NO_DATA,
            "content-type": CONTENT_TYPE,
            "content-encoding": "binary",
            "headers": self._headers(received, task_id, root_id, facts),
            "properties": {
                "delivery_info": {
                    "exchange": "",
                    "routing_key": self.queue,
                    "redelivered": attempt > 1 or received.delivery_attempt > 1,
                },
                "delivery_mode": 2,
                "priority": 0,
                "correlation_id": task_id,
                "reply_to": "",
            },
        }

    def _headers(
        self,
        received: Received,
        task_id: str,
        root_id: str,
        facts: MessageFacts,
    ) -> dict[str, Any]:
        return {
            "lang": "py",
            "task": self.queue,
            "id": task_id,
            "root_id": root_id,
            "parent_id": None if root_id == task_id else root_id,
            "group": None,
            # What monitors show before the run has asked the store.
            "retries": max(facts["attempt"], received.delivery_attempt) - 1,
            "eta": None,
            "expires": None,
            "timelimit": [None, None],
            "argsrepr": show(received.data),
            "kwargsrepr": "{}",
            "origin": self.origin,
            "ignore_result": True,
            # Else Celery's Context gathers what is no header of its own, at each run.
            "headers": {},
            "convotic": facts,
        }


def show(data: bytes) -> str:
    """Return the beginning of a message's data as text, for people."""
    text = data[: 4 * MAX_SHOWN_CHARACTERS].decode("utf-8", "replace")
    if len(text) <= MAX_SHOWN_CHARACTERS and len(data) <= 4 * MAX_SHOWN_CHARACTERS:
        return text
    return f"{text[:MAX_SHOWN_CHARACTERS]}…"
