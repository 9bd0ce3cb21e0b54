"""How many messages a queue has: exact on our emulator, unknown on Google's."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from convotic_pubsub.client.backlog_size import BacklogSize, read_from_monitoring
from convotic_pubsub.kombu.integrations import FlowerBroker
from tests.support.proxy import run_proxy
from tests.support.pubsub import make_spec
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import pytest

    from tests.integration.pubsub.conftest import MakeHarness


def test_our_emulator_counts_messages_leases_and_age(
    our_emulator: str, harness: MakeHarness
) -> None:
    """Three published, one of them held: that is what is reported."""
    one = harness(our_emulator, make_spec(concurrency=1, buffer_messages=0))
    one.publish(1, 2, 3)
    one.consume()
    one.drain_until(lambda: len(one.messages) == 1)

    depths = one.session.resources.backlog_sizes([one.spec.subscription, "no-such-subscription"])

    assert list(depths) == [one.spec.subscription]
    depth = depths[one.spec.subscription]
    assert (depth.messages, depth.leased, depth.figures_age_seconds) == (3, 1, 0)
    assert depth.oldest_age_seconds is not None
    assert depth.oldest_age_seconds < 60


def test_an_empty_queue_has_no_oldest_message(our_emulator: str, harness: MakeHarness) -> None:
    """Zero is reported as zero, because it is known."""
    one = harness(our_emulator, make_spec())

    assert one.session.resources.backlog_sizes([one.spec.subscription]) == {
        one.spec.subscription: BacklogSize(0, 0)
    }


def test_googles_emulator_tells_nothing(google_emulator: str, harness: MakeHarness) -> None:
    """What is not known is left out, and a passive declare says None, not 0."""
    one = harness(google_emulator, make_spec())
    one.publish(1)

    channel = one.connection.channel()

    assert one.session.resources.backlog_sizes([one.spec.subscription]) == {}
    assert channel.queue_declare(one.spec.queue, passive=True).message_count is None


def test_a_look_finds_what_waits_and_leaves_it_there(broker: str, harness: MakeHarness) -> None:
    """What is found can be pulled at once; what a consumer holds, or what is missing, is not."""
    one = harness(broker, make_spec(concurrency=1))
    resources, name = one.session.resources, one.spec.subscription

    assert resources.find_waiting([name, "no-such-subscription"]) == set()

    one.publish(1)
    assert resources.find_waiting([name, "no-such-subscription"]) == {name}
    assert resources.find_waiting([name]) == {name}

    one.consume()
    one.drain_until(lambda: one.messages)
    assert resources.find_waiting([name]) == set()


def test_unknown_lengths_are_said_once_in_an_outage(
    our_emulator: str, harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """However often they are asked for, with the cause in words; and that they are known again."""
    caplog.set_level(logging.INFO, "convotic_pubsub.client.backlog_size")
    with run_proxy(our_emulator) as proxy:
        one = harness(proxy.address, make_spec())

        def ask() -> dict[str, BacklogSize]:
            return one.session.resources.backlog_sizes([one.spec.subscription])

        assert ask()
        proxy.refuse()
        wait_until(lambda: not ask())
        assert not any(ask() for _ in range(3))
        proxy.resume()
        wait_until(ask)

    unknown, known = [
        record.getMessage() for record in caplog.records if record.name.endswith(".backlog_size")
    ]
    assert unknown.startswith("Queue lengths are not known: ")
    assert "AioRpcError" not in unknown
    assert known == "Queue lengths are known again"


def test_a_passive_declare_counts(our_emulator: str, harness: MakeHarness) -> None:
    """``queue_declare(passive=True)`` is AMQP's way to ask for a queue's length."""
    one = harness(our_emulator, make_spec())
    one.publish(1, 2)

    declared = one.connection.channel().queue_declare(one.spec.queue, passive=True)

    assert declared.message_count == 2


def test_flowers_rows_are_queues_and_their_dead_letters(
    our_emulator: str, harness: MakeHarness
) -> None:
    """A row a queue and one for its dead-letter subscription, with what is ready and leased."""
    one = harness(our_emulator, make_spec())
    one.on_message = lambda message: message.reject(requeue=False)
    one.consume()
    one.publish(1, 2)
    one.drain_until(lambda: one.session.dead_lettered[one.spec.queue] == 2)
    one.session.flush()
    one.cancel()
    one.publish(3)
    broker = FlowerBroker("pubsub://test-project", one.connection.transport_options)

    def read() -> list[tuple[str, int | None, int | None]]:
        rows = asyncio.run(broker.queues([one.spec.queue, "never-made"]))
        return [(row["name"], row["messages"], row["messages_unacknowledged"]) for row in rows]

    # The stream may have been given the last message before it has ended: that comes back.
    wait_until(lambda: read()[0] == (one.spec.queue, 1, 0))
    assert read()[1:] == [
        (f"{one.spec.queue}.dead-letter", 2, 0),
        ("never-made", None, None),
        ("never-made.dead-letter", None, None),
    ]


class FakeResponse:
    """One page of Monitoring's answer."""

    def __init__(self, page: dict[str, Any]) -> None:
        self._page = page

    def raise_for_status(self) -> None:
        """It went well."""

    def json(self) -> dict[str, Any]:
        return self._page


def test_monitoring_tells_the_depths_with_their_age() -> None:
    """The newest point of each series, over all pages."""
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    asked: list[dict[str, str]] = []

    def series(name: str, count: int, age: timedelta) -> dict[str, Any]:
        point = {"interval": {"endTime": (now - age).isoformat()}}
        return {
            "resource": {"labels": {"subscription_id": name}},
            "points": [{**point, "value": {"int64Value": str(count)}}, {}],
        }

    pages: list[dict[str, Any]] = [
        {"timeSeries": [series("one", 5, timedelta(minutes=3))], "nextPageToken": "more"},
        {"timeSeries": [series("two", 0, timedelta(minutes=2))]},
    ]

    def get(url: str, *, params: dict[str, str], timeout: float) -> FakeResponse:
        assert url.endswith("/v3/projects/p/timeSeries")
        assert timeout
        asked.append(dict(params))
        return FakeResponse(pages[len(asked) - 1])

    depths = read_from_monitoring(get, "p", now)

    assert depths == {
        "projects/p/subscriptions/one": BacklogSize(5, figures_age_seconds=180),
        "projects/p/subscriptions/two": BacklogSize(0, figures_age_seconds=120),
    }
    assert "num_undelivered_messages" in asked[0]["filter"]
    assert asked[1]["pageToken"] == "more"
