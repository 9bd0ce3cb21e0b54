"""The publisher of delayed messages on a real Valkey, with a topic that answers as a test wants."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest

from convotic_celery.context import Delivery, Services, Store
from convotic_celery.errors import StoreUnavailable, TopicHasNoSubscription
from convotic_celery.runtime.schedule.delayed_publisher import DelayedPublisher
from convotic_pubsub.outgoing import OutgoingMessage
from tests.support.valkey import run_valkey
from tests.support.waiting import PATIENCE, never, wait_until

TOPIC = "custom.orders.remind"


class Publisher:
    """Keeps what is published; confirms it, fails, or leaves it open."""

    def __init__(self) -> None:
        self.sent: list[OutgoingMessage] = []
        self.futures: list[Future[str]] = []
        #: An error or True for what comes next; None leaves it open.
        self.answer: Exception | bool | None = True

    def publish(self, message: OutgoingMessage, **_: Any) -> Future[str]:
        future: Future[str] = Future()
        if isinstance(self.answer, Exception):
            future.set_exception(self.answer)
        elif self.answer:
            future.set_result("17")
        self.futures.append(future)
        self.sent.append(message)
        return future


@pytest.fixture(scope="module")
def store_url() -> Iterator[str]:
    with run_valkey() as server:
        yield server.url


@pytest.fixture
def services(store_url: str) -> Iterator[Services]:
    store = Store(store_url)
    prefix = f"test-{uuid4().hex[:8]}:"
    yield Services(store, Publisher(), key_prefix=prefix, sent_messages_topic="sent")
    store.close()


@pytest.fixture
def publisher(services: Services) -> Publisher:
    assert isinstance(services.publisher, Publisher)
    return services.publisher


@pytest.fixture
def starter(services: Services) -> Iterator[Starter]:
    with ExitStack() as stack:
        yield Starter(services, stack)


class Starter:
    """Starts delayed publishers, and stops them with the test."""

    def __init__(self, services: Services, stack: ExitStack) -> None:
        self._services = services
        self._stack = stack

    def start(self, *, lock_seconds: float = 10.0) -> DelayedPublisher:
        """Return one that runs."""
        delayed = DelayedPublisher(self._services, lock_seconds=lock_seconds)
        self._stack.callback(delayed.stop, PATIENCE)
        delayed.start()
        return delayed


def lines_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what the delayed publisher has logged."""
    return [each for each in caplog.records if each.name.endswith(".delayed_publisher")]


def is_empty(services: Services) -> bool:
    """Tell whether nothing waits in the store."""
    client = services.store.sync_client()
    return client.exists(services.sync_schedule._keys.schedule) == 0


def test_due_messages_are_published_once(
    services: Services, publisher: Publisher, starter: Starter
) -> None:
    """Whatever the number of workers; then nothing is left of them."""
    messages = [{"data": n, "attributes": {"a": "b"}, "ordering_key": "c"} for n in range(1_200)]
    services.sync_pubsub().publish_many(TOPIC, messages, delay=0)

    for _ in range(3):
        starter.start()

    wait_until(lambda: is_empty(services))
    assert sorted(int(message.data) for message in publisher.sent) == list(range(1_200))
    assert publisher.sent[0] == OutgoingMessage(TOPIC, publisher.sent[0].data, {"a": "b"}, "c")


def test_message_that_is_added_here_is_seen_at_once(
    services: Services, publisher: Publisher, starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delayed publisher of the same process does not wait for its next look."""
    monkeypatch.setattr("convotic_celery.runtime.schedule.delayed_publisher.IDLE_SECONDS", 60.0)
    starter.start()

    for number in range(20):
        services.sync_pubsub().publish(TOPIC, data=number, delay=0)
        wait_until(lambda: is_empty(services))

    assert len(publisher.sent) == 20


def test_unconfirmed_publish_is_not_repeated(
    services: Services, publisher: Publisher, starter: Starter
) -> None:
    """While it is under way its lock is renewed, so that no other one takes it."""
    publisher.answer = None
    starter.start(lock_seconds=4)
    starter.start(lock_seconds=4)
    services.sync_pubsub().publish(TOPIC, data=1, delay=0)
    wait_until(lambda: publisher.futures)

    never(lambda: len(publisher.sent) > 1, for_=5)

    publisher.futures[0].set_result("17")
    wait_until(lambda: is_empty(services))


def test_killed_publishers_messages_are_published_by_another(
    services: Services, publisher: Publisher, starter: Starter
) -> None:
    """Once its lock is over."""
    services.sync_pubsub().publish(TOPIC, data=1, delay=0)
    taken = services.sync_schedule.take_due("killed", limit=1, lock_seconds=0.2)
    assert len(taken.messages) == 1

    starter.start()

    wait_until(lambda: is_empty(services))
    assert [message.data for message in publisher.sent] == [b"1"]


def test_refused_message_waits_and_is_told_once(
    services: Services,
    publisher: Publisher,
    starter: Starter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It neither vanishes nor is tried in a circle, and goes when it can; it can be cancelled."""
    publisher.answer = TopicHasNoSubscription(TOPIC)
    first, second = services.sync_pubsub().publish_many(TOPIC, [{"data": 1}, {"data": 2}], delay=0)
    begun = time.monotonic()
    starter.start()

    wait_until(lambda: len(publisher.sent) >= 6)

    assert time.monotonic() - begun > 2.9  # after one second, and two more
    assert [record.levelno for record in lines_of(caplog)] == [logging.ERROR]
    assert f"pubsub.cancel('{first}')" in caplog.text
    assert "Register a handler for it" in caplog.text
    wait_until(lambda: services.sync_pubsub().cancel(second))  # unless it is just being tried
    publisher.answer = True
    wait_until(lambda: is_empty(services))
    assert publisher.sent[-1].data == b"1"


def test_error_of_the_publisher_itself_is_no_end(
    services: Services, publisher: Publisher, starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a broker that can't be reached when the first message is due."""

    def publish(*_: object, **__: object) -> Future[str]:
        monkeypatch.undo()
        raise ConnectionError("nobody there")

    monkeypatch.setattr(publisher, "publish", publish)
    services.sync_pubsub().publish(TOPIC, data=1, delay=0)
    starter.start()

    wait_until(lambda: is_empty(services))
    assert len(publisher.sent) == 1


def send(services: Services, count: int) -> None:
    """Send messages, which announces them."""
    ctx = services.sync_context(Delivery(handler="h", topic="t", message_id="1"))
    conversation = ctx.conversations.create(ctx.contacts.create().id)
    for number in range(count):
        ctx.messages.send(conversation.id, text=str(number))


def test_announcement_without_a_topic_is_dropped(
    services: Services,
    publisher: Publisher,
    starter: Starter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A topic without subscribers is reported once, and not looked up each time."""
    caplog.set_level(logging.INFO)
    publisher.answer = TopicHasNoSubscription("sent")
    starter.start()

    send(services, 1)
    wait_until(lambda: is_empty(services))
    send(services, 5)
    wait_until(lambda: is_empty(services))

    assert len(publisher.sent) == 1
    assert [record.getMessage() for record in lines_of(caplog)] == [
        "Nothing is announced on sent: there is no such topic"
    ]


def test_announcement_survives_a_broker_that_is_away(
    services: Services, publisher: Publisher, starter: Starter
) -> None:
    """Only a missing topic drops it."""
    publisher.answer = ConnectionError("away")
    starter.start()
    send(services, 1)
    wait_until(lambda: publisher.sent)

    publisher.answer = True

    wait_until(lambda: is_empty(services))
    assert publisher.sent[-1].topic == "sent"


def test_store_that_is_away_is_told_once_and_found_again(
    services: Services,
    publisher: Publisher,
    starter: Starter,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was published meanwhile is settled then, not published again."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(
        "convotic_celery.runtime.schedule.delayed_publisher.STORE_AWAY_SECONDS", 0.05
    )
    attempts = []

    def unavailable(*arguments: Any, **_: Any) -> None:
        attempts.append(arguments)
        raise StoreUnavailable("The store does not answer: away")

    publisher.answer = None
    starter.start(lock_seconds=2)
    services.sync_pubsub().publish(TOPIC, data=1, delay=0)
    wait_until(lambda: publisher.futures)
    with monkeypatch.context() as away:
        for name in ("take_due", "settle", "renew"):
            away.setattr(services.sync_schedule, name, unavailable)
        publisher.futures[0].set_result("17")
        wait_until(lambda: len(attempts) > 50)  # longer than the lock

    wait_until(lambda: is_empty(services))
    wait_until(lambda: "The store is back" in caplog.text)

    assert len(publisher.sent) == 1
    assert caplog.text.count("Delayed messages wait") == 1


def test_stop_waits_for_what_is_under_way(
    services: Services, publisher: Publisher, starter: Starter
) -> None:
    """And takes nothing more; stopping twice or before the start is allowed."""
    publisher.answer = None
    delayed = starter.start()
    services.sync_pubsub().publish(TOPIC, data=1, delay=0)
    wait_until(lambda: publisher.futures)
    delayed.stop(0)
    services.sync_pubsub().publish(TOPIC, data=2, delay=0)
    assert delayed._thread.is_alive

    publisher.futures[0].set_result("17")

    assert delayed._thread.join(PATIENCE)
    delayed.stop()
    delayed.start()
    assert not delayed._thread.is_alive
    DelayedPublisher(services).stop()
    (left,) = services.sync_schedule.take_due("other", limit=9).messages
    assert left.message.data == b"2"
