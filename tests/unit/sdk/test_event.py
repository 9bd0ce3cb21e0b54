"""CloudEvents and compressed data become what any other message is."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from convotic_celery import CloudEvent, ConvoticModule, WorkerMessage
from convotic_celery.errors import InvalidMessage
from convotic_celery.runtime.delivery.payload import MessageFacts
from convotic_celery.runtime.execution.invoke import build_message
from convotic_celery.sdk import compression


class Order(BaseModel):
    id: int


ORDER = b'{"id": 1}'
BINARY = {
    "ce-specversion": "1.0",
    "ce-id": "e-1",
    "ce-source": "/shop",
    "ce-type": "order.created",
    "ce-time": "2026-11-23T20:00:00Z",
    "ce-region": "eu",
    "content-type": "application/json",
    "other": "x",
}
STRUCTURED: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/shop",
    "type": "order.created",
    "time": "2026-11-23T20:00:00Z",
    "region": "eu",
    "retry": 3,
}
STRUCTURED_TYPE = {"content-type": "application/cloudevents+json; charset=utf-8"}


def receive(
    raw: bytes, attributes: dict[str, str] | None = None, **options: Any
) -> WorkerMessage[Order]:
    """Return the message that a handler with these options gets, by way of the runtime."""
    module = ConvoticModule(name="shop", version="1")

    @module.worker("custom.orders.new", **options)
    async def process(message: WorkerMessage[Order | None], ctx: object) -> None: ...

    (definition,) = module.collect_handlers()
    facts: MessageFacts = {
        "message_id": "17",
        "pubsub_id": "17",
        "attributes": attributes or {},
        "ordering_key": "",
        "published_at": datetime(2026, 11, 23, 20, tzinfo=UTC),
        "attempt": 1,
        "delivery_attempt": 1,
        "replay_count": 0,
        "empty": not raw,
        "trace": {},
    }
    return build_message(definition, raw, facts)


def structured(**members: Any) -> bytes:
    return json.dumps({**STRUCTURED, **members}).encode()


def test_binary_event() -> None:
    """Data is the data; ce- attributes are the event, and stay attributes."""
    message = receive(ORDER, BINARY, cloud_events="require")

    assert message.data == Order(id=1)
    assert message.attributes == BINARY
    assert message.event == CloudEvent(
        specversion="1.0",
        id="e-1",
        source="/shop",
        type="order.created",
        time=datetime(2026, 11, 23, 20, tzinfo=UTC),
        datacontenttype="application/json",
        extensions={"region": "eu"},
    )


@pytest.mark.parametrize(
    "members", [{"data": {"id": 1}}, {"data_base64": base64.b64encode(ORDER).decode()}]
)
def test_structured_event(members: dict[str, Any]) -> None:
    """The whole event is the data; names of attributes may be written as HTTP does."""
    attributes = {"Content-Type": STRUCTURED_TYPE["content-type"]}

    message = receive(structured(**members), attributes, cloud_events="accept")

    assert message.data == Order(id=1)
    assert message.event is not None
    assert message.event.type == "order.created"
    assert message.event.extensions == {"region": "eu", "retry": 3}


def test_event_without_data() -> None:
    """It is empty data, as of any message."""
    message = receive(structured(), STRUCTURED_TYPE, cloud_events="accept")

    assert message.data is None
    assert message.event is not None


def test_other_messages_are_as_before() -> None:
    """Where events are accepted but none came, and where they are off."""
    assert receive(ORDER, cloud_events="accept").event is None
    assert receive(ORDER, BINARY).event is None
    assert receive(ORDER, BINARY).data == Order(id=1)


@pytest.mark.parametrize(
    ("raw", "attributes", "said"),
    [
        (ORDER, {}, "not a CloudEvent: it has neither"),
        (b"[]", {"content-type": "application/cloudevents-batch+json"}, "batch"),
        (b"<a/>", {"content-type": "application/cloudevents+xml"}, "only JSON"),
        (b"{", STRUCTURED_TYPE, "not JSON"),
        (b"[]", STRUCTURED_TYPE, "not a JSON object"),
        (structured(data=1, data_base64="MQ=="), STRUCTURED_TYPE, "both data and data_base64"),
        (structured(data_base64="%"), STRUCTURED_TYPE, "not base64"),
        (structured(data_base64=7), STRUCTURED_TYPE, "not base64"),
        (structured(specversion="0.3"), STRUCTURED_TYPE, "specversion"),
        (structured(id=""), STRUCTURED_TYPE, "the CloudEvent's id"),
        (structured(time="noon"), STRUCTURED_TYPE, "the CloudEvent's time"),
        (structured(deep={"a": 1}), STRUCTURED_TYPE, r"the CloudEvent's extensions\.deep"),
        (structured(data={"id": "x"}), STRUCTURED_TYPE, "id: Input should be a valid integer"),
        (ORDER, {"ce-specversion": "1.0", "ce-id": "1"}, "the CloudEvent's source"),
    ],
)
def test_broken_event_is_invalid(raw: bytes, attributes: dict[str, str], said: str) -> None:
    """The reason names the attribute."""
    with pytest.raises(InvalidMessage, match=said):
        receive(raw, attributes, cloud_events="require")


@pytest.mark.parametrize("name", ["content-encoding", "Content-Encoding"])
@pytest.mark.parametrize(
    "raw",
    [gzip.compress(ORDER), gzip.compress(b'{"id"') + gzip.compress(b":1}")],
    ids=["one member", "two members"],  # the bytes have the time in them
)
def test_compressed_data(name: str, raw: bytes) -> None:
    """Also of several members; also of an event."""
    assert receive(raw, {name: "GZIP"}, accept_gzip=True).data == Order(id=1)

    event = receive(
        gzip.compress(structured(data={"id": 2})),
        STRUCTURED_TYPE | {name: "gzip"},
        accept_gzip=True,
        cloud_events="require",
    )
    assert event.data == Order(id=2)


def test_plain_data_is_taken_where_gzip_is_accepted() -> None:
    """The attribute decides."""
    assert receive(ORDER, accept_gzip=True).data == Order(id=1)
    assert receive(ORDER, {"content-encoding": "identity"}, accept_gzip=True).data == Order(id=1)


@pytest.mark.parametrize(
    ("raw", "encoding", "said"),
    [
        (ORDER, "gzip", "data is not gzip"),
        (gzip.compress(ORDER)[:-4], "gzip", "truncated"),
        (ORDER, "br", "'br'; only gzip"),
    ],
    ids=["plain", "truncated", "other encoding"],
)
def test_broken_compression_is_invalid(raw: bytes, encoding: str, said: str) -> None:
    """It goes to the dead-letter topic as any invalid data."""
    with pytest.raises(InvalidMessage, match=said):
        receive(raw, {"content-encoding": encoding}, accept_gzip=True)


def test_bomb_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decompression stops at the limit, over all members."""
    monkeypatch.setattr(compression, "MAX_DATA_BYTES", 1_000)

    for raw in (gzip.compress(b" " * 100_000), gzip.compress(b" " * 600) * 2):
        with pytest.raises(InvalidMessage, match="more than 1,000 bytes"):
            receive(raw, {"content-encoding": "gzip"}, accept_gzip=True)


def test_compressed_data_without_the_option_says_so() -> None:
    """The reason names the option."""
    with pytest.raises(InvalidMessage, match="accept_gzip=True"):
        receive(gzip.compress(ORDER), {"content-encoding": "gzip"})
