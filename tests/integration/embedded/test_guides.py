"""The code of docs/emulator.md, dead-letters.md and transport.md runs as it is shown."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient

from convotic_emulator import daemon
from convotic_emulator.testing import EmulatorThread
from tests.support.orphans import end_emulator
from tests.support.waiting import PATIENCE

DOCS = Path(__file__).resolve().parents[3] / "docs"


def read_block(page: str, mark: str) -> Any:
    """Return the compiled block of a page that has ``mark``; it may await."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    (block,) = [each for each in blocks if mark in each]
    return compile(block, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_emulator_is_started_from_code(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started or found, asked, and stopped."""
    monkeypatch.setenv("HOME", str(data_dir))
    scope: dict[str, Any] = {}
    try:
        exec(read_block("emulator.md", "daemon.ensure_running"), scope)
    finally:
        end_emulator(data_dir / "pubsub")

    assert re.fullmatch(r"127\.0\.0\.1:\d+", scope["address"])
    assert daemon.status(data_dir / "pubsub") is None


def test_the_fixture_is_used_as_shown(pubsub_emulator: EmulatorThread) -> None:
    """With the subscription that the page's test is about."""
    with PublisherClient() as publisher, SubscriberClient() as subscriber:
        publisher.create_topic(name="projects/p/topics/orders")
        subscriber.create_subscription(
            name="projects/p/subscriptions/orders", topic="projects/p/topics/orders"
        )
    scope: dict[str, Any] = {}
    exec(read_block("emulator.md", "lose_acks"), scope)

    scope["test_a_lost_acknowledgement_does_no_harm"](pubsub_emulator)


async def test_a_server_with_a_clock_is_made_as_shown() -> None:
    """Inside a coroutine."""
    scope: dict[str, Any] = {}
    await eval(read_block("emulator.md", "ManualClock"), scope)

    assert scope["server"].address


def test_a_celery_app_takes_the_transport_as_shown() -> None:
    """The transport is found by its URL."""
    scope: dict[str, Any] = {"Celery": Celery}
    exec(read_block("transport.md", "pubsub://my-project"), scope)

    with scope["app"].connection_for_write() as connection:
        assert connection.get_transport_cls().driver_type == "pubsub"


def test_a_dead_letter_is_read_and_replayed_as_shown(pubsub_emulator: EmulatorThread) -> None:
    """The original topic has it again, for the one handler, and the dead letter is gone."""
    handler = "orders.shop"
    topics = [f"projects/p/topics/{name}" for name in ("orders", f"{handler}.dead-letter")]
    subscriptions = [f"projects/p/subscriptions/{handler}{end}" for end in ("", ".dead-letter")]
    scope: dict[str, Any] = {}
    for mark in ("def read_dead_letters", "def replay"):
        exec(read_block("dead-letters.md", mark), scope)
    with PublisherClient() as publisher, SubscriberClient() as subscriber:
        for topic, subscription in zip(topics, subscriptions, strict=True):
            publisher.create_topic(name=topic)
            subscriber.create_subscription(name=subscription, topic=topic)
        attributes = {
            "convotic-dead-letter-reason": "invalid",
            "convotic-dead-letter-message-id": "17",
            "convotic-dead-letter-topic": "orders",
            "convotic-replay-token": "t",
            "source": "api",
        }
        publish: Any = publisher.publish  # typed as the generated client's
        publish(topics[1], b"{}", **attributes).result(PATIENCE)

        (dead,) = scope["read_dead_letters"]("p", handler)
        scope["replay"]("p", handler, dead)

        (found,) = subscriber.pull(
            subscription=subscriptions[0], max_messages=1, timeout=PATIENCE
        ).received_messages
    assert found.message.data == b"{}"
    assert found.message.attributes == {
        "source": "api",
        "convotic-target": handler,
        "convotic-message-id": "17",
        "convotic-replay-token": "t",
        "convotic-replay-count": "1",
    }
    assert pubsub_emulator.count(subscriptions[1]) == 0
