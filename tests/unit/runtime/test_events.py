"""Task events go out in batches, off the way of messages; the oldest are dropped first."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from kombu import Connection
from kombu.serialization import loads

from convotic_celery.runtime.worker import events
from convotic_celery.runtime.worker.events import BatchingDispatcher
from tests.support.waiting import wait_until
from tests.unit.runtime.support import make_app

_ACCEPTED = {"application/json", "application/x-python-serialize"}


class Recorder:
    """Stands for kombu's producer: keeps what is published, or refuses it."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Any]] = []
        self.error: Exception | None = None

    def publish(self, body: Any, *, routing_key: str, **options: Any) -> None:
        if self.error is not None:
            raise self.error
        if kind := options.get("content_type"):
            body = loads(body, kind, options["content_encoding"], accept=_ACCEPTED)
        self.published.append((routing_key, body))


@pytest.fixture
def dispatcher() -> BatchingDispatcher:
    """A worker's dispatcher, with a recorder for a producer."""
    found: Any = make_app().events.Dispatcher(
        Connection("memory://"), hostname="celery@here", buffer_group=["task"]
    )
    assert isinstance(found, BatchingDispatcher)
    found.producer = Recorder()
    return found


def test_events_of_a_moment_travel_together(dispatcher: BatchingDispatcher) -> None:
    """In their order, each with the time at which it was noted, and what Celery's have."""
    recorder, dispatcher.producer = dispatcher.producer, None  # a moment ends when it can be sent
    for number in range(3):
        dispatcher.send("task-received", uuid=str(number))
    dispatcher.producer = recorder
    dispatcher.flush()

    ((key, batch),) = recorder.published
    assert key == "task.multi"
    assert [event["uuid"] for event in batch] == ["0", "1", "2"]
    assert batch[0].keys() >= {"type", "timestamp", "hostname", "utcoffset", "pid", "clock"}
    assert batch[0]["clock"] < batch[1]["clock"] < batch[2]["clock"]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("task-succeeded", {"result": "'é \u2028 \U0001f600'", "runtime": 0.1 + 0.2, "big": 2**70}),
        ("task-received", {"args": "['\ud800']", "kwargs": "{}", "eta": None, "retries": 3}),
        ("task-progress", {"at": datetime(2026, 11, 28, tzinfo=UTC), "share": Decimal("0.5")}),
    ],
)
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_fields_arrive_as_they_were(
    dispatcher: BatchingDispatcher, kind: str, fields: dict[str, Any], serializer: str
) -> None:
    """Whatever writes them: also half of a surrogate pair, and an application's own event."""
    dispatcher.serializer = serializer

    dispatcher.send(kind, uuid="1", **fields)
    dispatcher.flush()

    ((_, (event,)),) = dispatcher.producer.published
    assert event["type"] == kind
    assert {name: event[name] for name in fields} == fields


def test_other_events_are_sent_at_once(dispatcher: BatchingDispatcher) -> None:
    """A heartbeat does not wait for tasks."""
    dispatcher.send("worker-heartbeat", freq=2)

    assert [key for key, _ in dispatcher.producer.published] == ["worker.heartbeat"]


def test_events_that_nobody_enabled_are_not_noted(dispatcher: BatchingDispatcher) -> None:
    """``disable_events`` leaves the group ``task`` out."""
    dispatcher.groups = {"worker"}

    dispatcher.send("task-received", uuid="1")
    dispatcher.flush()

    assert dispatcher.producer.published == []


def test_the_oldest_are_dropped(
    dispatcher: BatchingDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a connection a bounded number waits; one line in the log says so."""
    recorder, dispatcher.producer = dispatcher.producer, None
    for number in range(events.MAX_WAITING + 5):
        dispatcher.send("task-received", uuid=number)
    dispatcher.producer = recorder

    dispatcher.flush()

    sent = [event["uuid"] for _, batch in recorder.published for event in batch]
    assert sent == list(range(5, events.MAX_WAITING + 5))
    assert max(len(batch) for _, batch in recorder.published) == events.MAX_BATCH
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1


def test_a_broker_that_refuses_costs_nothing(dispatcher: BatchingDispatcher) -> None:
    """What could not be sent is dropped, and the next batch is sent."""
    recorder = dispatcher.producer
    recorder.error = ConnectionError("away")
    dispatcher.send("task-received", uuid="1")
    dispatcher.flush()
    recorder.error = None

    dispatcher.send("task-received", uuid="2")
    dispatcher.flush()

    assert [event["uuid"] for _, batch in recorder.published for event in batch] == ["2"]


def test_at_the_systems_limit_of_threads_events_wait(
    dispatcher: BatchingDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message's run goes on, and the next event tries again: no later one was ever sent."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        dispatcher.send("task-received", uuid="1")
    dispatcher.send("task-received", uuid="2")

    wait_until(lambda: dispatcher.producer.published)
    (batch,) = [batch for _, batch in dispatcher.producer.published]
    assert [event["uuid"] for event in batch] == ["1", "2"]


def test_a_new_connection_gets_what_the_old_one_had(dispatcher: BatchingDispatcher) -> None:
    """Celery makes another dispatcher when it connects again."""
    old: Any = make_app().events.Dispatcher(
        Connection("memory://"), hostname="celery@here", buffer_group=["task"]
    )
    old.producer = None
    old.send("task-received", uuid="1")

    dispatcher.extend_buffer(old)
    dispatcher.flush()

    assert [event["uuid"] for _, batch in dispatcher.producer.published for event in batch] == ["1"]


def test_noting_an_event_costs_little(dispatcher: BatchingDispatcher) -> None:
    """Of the 200 us of a message it is called three times in."""

    def cost() -> float:
        began = time.thread_time()
        for _ in range(1000):
            dispatcher.send("task-received", uuid="1", name="orders.new.shop", args="{}")
        return (time.thread_time() - began) / 1000

    assert min(cost() for _ in range(10)) < 10e-6
