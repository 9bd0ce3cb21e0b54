"""A kombu consumer with a policy that counts, for tests of the transport."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kombu import Connection, Consumer, Queue

from convotic_pubsub.outgoing import OutgoingMessage
from convotic_pubsub.queue import (
    Decision,
    Deliver,
    PayloadDict,
    QueueSpec,
    Received,
)
from convotic_pubsub.session import Session
from tests.support.waiting import PATIENCE, wait_until

__all__ = [
    "Harness",
    "PlainPolicy",
    "acknowledge",
    "make_payload",
    "make_spec",
    "pull",
    "pull_all",
    "unique",
]

_numbers = itertools.count()


def unique(prefix: str) -> str:
    """Return a name that no other test uses."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"


def make_payload(received: Received) -> PayloadDict:
    """Return a kombu payload for a raw message."""
    return {
        "body": received.data,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"deliveries": received.delivery_attempt},
        "properties": {"delivery_info": {"exchange": "", "routing_key": ""}, "priority": 0},
    }


class PlainPolicy:
    """Delivers everything; ``decisions`` may override by data."""

    def __init__(self) -> None:
        self.decisions: dict[bytes, Decision] = {}

    def decide(self, received: Received) -> Decision:
        """Deliver."""
        return self.decisions.get(received.data) or Deliver(make_payload(received))


def make_spec(policy: PlainPolicy | None = None, **changes: Any) -> QueueSpec:
    """Return a specification with names of its own."""
    name = unique("orders")
    values: dict[str, Any] = {
        "queue": f"{name}.worker",
        "topic": name,
        "subscription": f"{name}.worker",
        "policy": policy or PlainPolicy(),
        "dead_letter_topic": f"{name}.worker.dead-letter",
        "max_delivery_attempts": 10,
    }
    return QueueSpec(**{**values, **changes})


class Harness:
    """One kombu connection with one consumed queue, driven by the test."""

    def __init__(self, address: str | Callable[[], str], spec: QueueSpec, **options: Any) -> None:
        self.spec = spec
        #: Any: kombu's stubs know only the base classes of transport and channel.
        connection: Any = Connection(
            "pubsub://test-project",
            transport_options={
                "emulator_host": address,
                "queues": {spec.queue: spec},
                **options,
            },
        )
        self.connection = connection
        connection.connect()
        self.session: Session = connection.transport.session
        self.messages: list[Any] = []
        self.on_message: Callable[[Any], object] = lambda _message: None
        self.session.resources.ensure(spec)
        self._consumer: Consumer | None = None

    def consume(self) -> None:
        """Start to consume."""
        channel = self.connection.channel()
        queue = Queue(self.spec.queue, channel=channel)
        self._consumer = Consumer(
            channel, [queue], on_message=self._receive, auto_declare=False, accept=["json"]
        )
        self._consumer.consume()

    def cancel(self) -> None:
        """Stop consuming; what is held stays held."""
        assert self._consumer is not None
        self._consumer.cancel()

    def _receive(self, message: Any) -> None:
        self.messages.append(message)
        self.on_message(message)

    @property
    def bodies(self) -> list[Any]:
        """The JSON of what was handed over, in order."""
        return [json.loads(message.body) for message in self.messages]

    def publish(self, *values: Any, **attributes: str) -> list[str]:
        """Publish each value as JSON, confirmed; return the ids."""
        futures = [
            self.session.publish(
                OutgoingMessage(self.spec.topic, json.dumps(value).encode(), attributes)
            )
            for value in values
        ]
        return [future.result(PATIENCE) for future in futures]

    def drain_until(self, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
        """Hand over what comes until the condition holds; fail after :data:`PATIENCE` or more."""
        clock = self.session.clock
        end = clock() + max(seconds, PATIENCE)
        while not condition():
            if clock() > end:
                pytest.fail(f"not within {max(seconds, PATIENCE):g} s; handed over: {self.bodies}")
            try:
                self.connection.drain_events(timeout=0.05)
            except TimeoutError:
                continue

    def drain_for(self, seconds: float) -> None:
        """Hand over what comes for a while, to show what does not come."""
        end = self.session.clock() + seconds
        while self.session.clock() < end:
            try:
                self.connection.drain_events(timeout=0.05)
            except TimeoutError:
                continue

    def dead_letters(self) -> Iterator[Any]:
        """Pull what is in the dead-letter subscription, unacknowledged."""
        return pull(self.session, self.spec.dead_letter_topic)

    def close(self) -> None:
        """Close the connection and the session behind it."""
        self.connection.close()
        self.session.close()


def pull(session: Session, subscription: str) -> Iterator[Any]:
    """Pull up to 100 messages of a subscription now."""
    # rpc imports gRPC and Google's types: only tests that have a server pay for it.
    from convotic_pubsub.client.rpc import pb  # noqa: PLC0415

    path = f"projects/{session.options.project}/subscriptions/{subscription}"
    request = pb.PullRequest(subscription=path, max_messages=100, return_immediately=True)

    async def call() -> Any:
        return await session.broker.rpc.pull(request, timeout=PATIENCE)

    return iter(session.call(call()).received_messages)


def pull_all(session: Session, subscription: str, count: int) -> list[Any]:
    """Pull until so many messages have come, of which each Pull may bring some; return them."""
    found: dict[str, Any] = {}

    def have_come() -> bool:
        found.update({each.message.message_id: each for each in pull(session, subscription)})
        return len(found) >= count

    wait_until(have_come, what=f"{count} messages of {subscription}")
    return list(found.values())


def acknowledge(session: Session, subscription: str, ack_ids: list[str]) -> None:
    """Acknowledge what :func:`pull` has given."""
    path = f"projects/{session.options.project}/subscriptions/{subscription}"

    async def call() -> None:
        await session.broker.rpc.acknowledge(path, ack_ids)

    session.call(call())
