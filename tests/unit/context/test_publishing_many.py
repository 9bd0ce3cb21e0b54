"""Many messages in one call: all checked, all confirmed, or told which are not."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest

from convotic_celery.context import Services, Store
from convotic_celery.errors import InvalidAttribute, PublishManyFailed, PublishRefused
from convotic_pubsub.outgoing import OutgoingMessage

TOPIC = "custom.orders.new"


@dataclass
class FakePublisher:
    """Confirms at once; fails for data in ``failing``, is silent for data in ``silent``."""

    failing: set[bytes] = field(default_factory=set)
    silent: set[bytes] = field(default_factory=set)
    sent: list[bytes] = field(default_factory=list)

    def publish(self, message: OutgoingMessage, **_: Any) -> Future[str]:
        data = message.data
        self.sent.append(data)
        future: Future[str] = Future()
        if data in self.failing:
            future.set_exception(ConnectionError("lost"))
        elif data not in self.silent:
            future.set_result(f"id-{data.decode()}")
        return future


async def publish_many(kind: str, publisher: FakePublisher, messages: Any) -> list[str]:
    store = Store("redis://127.0.0.1:1")  # nobody answers there, and nothing asks it
    services = Services(store, publisher, publish_timeout_seconds=0.05)
    if kind == "async":
        return await services.async_pubsub().publish_many(TOPIC, messages)
    return services.sync_pubsub().publish_many(TOPIC, messages)


both = pytest.mark.parametrize("kind", ["async", "sync"])


@both
@pytest.mark.parametrize("count", [0, 1, 2, 2_503])
async def test_all_ids_come_in_order(kind: str, count: int) -> None:
    """However many there are; any iterable will do."""
    publisher = FakePublisher()

    ids = await publish_many(kind, publisher, ({"data": n} for n in range(count)))

    assert ids == [f"id-{n}" for n in range(count)]
    assert len(publisher.sent) == count


@both
async def test_one_bad_message_stops_all(kind: str) -> None:
    """Nothing is sent, and the refusal says which it is."""
    publisher = FakePublisher()
    messages = [{"data": 1}, {"data": 2, "attributes": {"goog-x": "1"}}]

    with pytest.raises(InvalidAttribute, match=r"message 1: .*reserved.*Nothing was sent"):
        await publish_many(kind, publisher, messages)
    with pytest.raises(PublishRefused, match="message 0 is int"):
        await publish_many(kind, publisher, [7])

    assert publisher.sent == []


@both
async def test_failure_says_which_are_published(kind: str) -> None:
    """Ids of the others are there; what follows in a later batch is not sent."""
    publisher = FakePublisher(failing={b"2"}, silent={b"3"})
    messages = [{"data": n} for n in range(1_500)]

    with pytest.raises(PublishManyFailed) as failed:
        await publish_many(kind, publisher, messages)

    error = failed.value
    assert error.message_ids[:5] == ["id-0", "id-1", None, None, "id-4"]
    assert error.failures == {
        2: "ConnectionError: lost",
        3: "not confirmed within 0.05 seconds, may be stored",
    }
    assert error.unpublished == [2, 3, *range(1_001, 1_500)]
    assert len(publisher.sent) == 1_001
    assert "2 failed and 499 were not sent: message 2: ConnectionError: lost" in str(error)
    assert isinstance(error.__cause__, ConnectionError)


@both
async def test_first_message_goes_alone(kind: str) -> None:
    """A topic that is missing is created once, or refused once."""
    publisher = FakePublisher(failing={b"0"})

    with pytest.raises(PublishManyFailed, match="1 failed and 2 were not sent"):
        await publish_many(kind, publisher, [{"data": n} for n in range(3)])

    assert publisher.sent == [b"0"]
