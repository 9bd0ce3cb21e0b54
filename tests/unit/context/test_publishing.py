"""Each rule of publishing has its own refusal, before anything is sent."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from convotic_celery.context import AsyncPubsub, Services, Store, SyncPubsub
from convotic_celery.context.publishing import encode_json
from convotic_celery.errors import (
    EmptyMessage,
    InvalidAttribute,
    InvalidOrderingKey,
    InvalidTopic,
    MessageTooLarge,
    NotSerializable,
    PublishNotConfirmed,
    PublishRefused,
)
from convotic_pubsub.outgoing import OutgoingMessage

TOPIC = "custom.orders.new"
#: Nobody answers there, and nothing that is published at once asks it.
NO_STORE = Store("redis://127.0.0.1:1")


@dataclass
class FakePublisher:
    """Records what is published; confirms it at once unless the test holds it."""

    confirm: bool = True
    error: Exception | None = None
    sent: list[tuple[str, bytes, dict[str, str], str]] = field(default_factory=list)
    futures: list[Future[str]] = field(default_factory=list)

    def publish(self, message: OutgoingMessage, **_: Any) -> Future[str]:
        self.sent.append(
            (message.topic, message.data, dict(message.attributes), message.ordering_key)
        )
        future: Future[str] = Future()
        if self.error:
            future.set_exception(self.error)
        elif self.confirm:
            future.set_result("17")
        self.futures.append(future)
        return future


def build(publisher: FakePublisher, *, timeout: float = 5, **trace: str) -> SyncPubsub:
    services = Services(NO_STORE, publisher, publish_timeout_seconds=timeout)
    return services.sync_pubsub(trace)


def build_async(publisher: FakePublisher, *, timeout: float = 5) -> AsyncPubsub:
    return Services(NO_STORE, publisher, publish_timeout_seconds=timeout).async_pubsub()


class Order(BaseModel):
    id: int
    total: Decimal


def test_message_is_raw_json_and_attributes() -> None:
    """No envelope; the id comes back once it is confirmed."""
    publisher = FakePublisher()

    message_id = build(publisher).publish(
        TOPIC, data={"id": 1}, attributes={"source": "api"}, ordering_key="c-1"
    )

    assert message_id == "17"
    assert publisher.sent == [(TOPIC, b'{"id":1}', {"source": "api"}, "c-1")]


def test_message_may_be_one_mapping() -> None:
    """The seed's form, in either spelling."""
    publisher = FakePublisher()
    content = {"data": {"id": 1}, "attributes": {"source": "api"}, "orderingKey": "c-1"}

    build(publisher).publish(TOPIC, content)

    assert publisher.sent == [(TOPIC, b'{"id":1}', {"source": "api"}, "c-1")]


async def test_async_publish_waits_for_the_confirmation() -> None:
    """The publisher's own errors pass through."""
    publisher = FakePublisher()
    assert await build_async(publisher).publish(TOPIC, data=1) == "17"

    publisher = FakePublisher(error=TimeoutError("the server's"))
    with pytest.raises(TimeoutError, match="the server's"):
        await build_async(publisher).publish(TOPIC, data=1)


async def test_publish_without_confirmation_is_an_error() -> None:
    """It says that the message may or may not be stored."""
    publisher = FakePublisher(confirm=False)

    with pytest.raises(PublishNotConfirmed, match="may or may not"):
        await build_async(publisher, timeout=0.01).publish(TOPIC, data=1)
    with pytest.raises(PublishNotConfirmed, match="may or may not"):
        build(publisher, timeout=0.01).publish(TOPIC, data=1)


async def test_cancelled_handler_does_not_cancel_the_publish() -> None:
    """The publisher can still complete its future."""
    publisher = FakePublisher(confirm=False)
    pubsub = build_async(publisher)
    task = asyncio.create_task(pubsub.publish(TOPIC, data=1))
    await asyncio.sleep(0)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    publisher.futures[0].set_result("17")


def test_trace_context_is_passed_on() -> None:
    """Unless the author gives one, or there is no room."""
    publisher = FakePublisher()
    pubsub = build(publisher, traceparent="00-a", tracestate="s")

    pubsub.publish(TOPIC, data=1)
    pubsub.publish(TOPIC, data=1, attributes={"traceparent": "mine"})
    pubsub.publish(TOPIC, data=1, attributes={str(number): "" for number in range(100)})

    attributes = [sent[2] for sent in publisher.sent]
    assert attributes[0] == {"traceparent": "00-a", "tracestate": "s"}
    assert attributes[1] == {"traceparent": "mine", "tracestate": "s"}
    assert len(attributes[2]) == 100


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (Order(id=1, total=Decimal("29.30")), {"id": 1, "total": "29.30"}),
        ({"at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)}, {"at": "2026-01-02T03:04:05Z"}),
        ([1, "NaN and Infinity"], [1, "NaN and Infinity"]),
        ("ä", "ä"),
        ([{"None": 2}, "1" * 5000], [{"None": 2}, "1" * 5000]),
        (0, 0),
    ],
)
def test_data_is_json(data: object, expected: object) -> None:
    """Models, dates and decimals have their pydantic form."""
    assert json.loads(encode_json(data)) == expected


def make_loop() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "data",
    [
        *(b"raw", bytearray(b"raw"), object(), {"a": object()}, float("nan"), make_loop()),
        *("\ud800", {None: 2}, [{"a": {None: 2}}], {"a": 10**5000}, [-(10**5000)]),
    ],
)
def test_data_without_json_form_is_refused(data: object) -> None:
    """Bytes too: the data of a message is JSON."""
    with pytest.raises(NotSerializable, match="JSON"):
        build(FakePublisher()).publish(TOPIC, data=data)


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        ({"topic": "a"}, InvalidTopic, "3 to 255 characters"),
        ({"topic": "projects/p/topics/t"}, InvalidTopic, "3 to 255 characters"),
        ({"data": None}, EmptyMessage, "data or attributes"),
        ({"data": "x" * 10_000_000}, MessageTooLarge, "10,000,002 bytes"),
        ({"attributes": {str(n): "" for n in range(101)}}, InvalidAttribute, "at most 100"),
        ({"attributes": {"k" * 257: ""}}, InvalidAttribute, "has 257 bytes"),
        ({"attributes": {"ä" * 129: ""}}, InvalidAttribute, "has 258 bytes"),
        ({"attributes": {"": "x"}}, InvalidAttribute, "has 0 bytes"),
        ({"attributes": {"k": "v" * 1025}}, InvalidAttribute, "value of attribute 'k' has 1025"),
        ({"attributes": {"k": 1}}, InvalidAttribute, "names and values are strings"),
        ({"attributes": {"googclient_x": ""}}, InvalidAttribute, "'googclient_x' is reserved"),
        ({"attributes": {"convotic-target": ""}}, InvalidAttribute, "is reserved"),
        ({"attributes": {"k": "\ud800"}}, PublishRefused, "UTF-8"),
        ({"ordering_key": "k" * 1025}, InvalidOrderingKey, "at most 1024 bytes"),
        ({"ordering_key": 1}, InvalidOrderingKey, "is a string"),
    ],
)
def test_broken_rule_is_named(
    arguments: dict[str, Any], error: type[PublishRefused], reason: str
) -> None:
    """And nothing is sent."""
    publisher = FakePublisher()

    with pytest.raises(error, match=reason):
        build(publisher).publish(**{"topic": TOPIC, "data": 1, **arguments})

    assert publisher.sent == []


def test_limits_themselves_are_allowed() -> None:
    """What is exactly as long as Pub/Sub allows is sent."""
    publisher = FakePublisher()
    attributes = {f"{number:0256}": "v" * 1024 for number in range(100)}
    room = 10_000_000 - 100 * (256 + 1024) - 2

    build(publisher).publish(TOPIC, data="x" * room, attributes=attributes)
    build(publisher).publish(TOPIC, attributes={"only": "attributes"}, ordering_key="k" * 1024)

    assert len(publisher.sent) == 2


@pytest.mark.parametrize("content", [{"id": 1}, {}, {"data": 1, "attribute": {}}])
def test_mapping_that_is_no_message_is_told(content: dict[str, Any]) -> None:
    """Forgetting ``data=`` would otherwise publish nothing of it."""
    with pytest.raises(PublishRefused, match="say data=value"):
        build(FakePublisher()).publish(TOPIC, content)


def test_message_in_both_forms_is_refused() -> None:
    """It is not guessed which one is meant."""
    with pytest.raises(PublishRefused, match="not as both"):
        build(FakePublisher()).publish(TOPIC, {"data": 1}, attributes={"a": "b"})
