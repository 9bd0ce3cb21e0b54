"""Resources from a file: what is created and changed, and what a mistake is answered with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from convotic_emulator.errors import ResourcesError
from convotic_emulator.server import EmulatorServer
from convotic_emulator.services.resources import apply_resources

FILE = """
project: p
schemas:
  - name: order
    type: AVRO
    definition: '{"type": "record", "name": "order", "fields": [{"name": "id", "type": "int"}]}'
topics:
  - name: orders
    labels: {team: shop}
    message_retention_duration: 1d
    schema_settings: {schema: order, encoding: JSON}
  - name: projects/other/topics/orders.dead
subscriptions:
  - name: orders.billing
    topic: orders
    ackDeadlineSeconds: 30
    filter: attributes.kind = "paid"
    enable_message_ordering: true
    retry_policy: {minimum_backoff: 10s, maximum_backoff: 60}
    dead_letter_policy:
      dead_letter_topic: projects/other/topics/orders.dead
      max_delivery_attempts: 7
    push_config:
      push_endpoint: http://localhost:8080/orders
"""


@pytest.fixture
async def server() -> AsyncIterator[EmulatorServer]:
    async with EmulatorServer() as running:
        yield running


async def apply(server: EmulatorServer, tmp_path: Path, text: str) -> None:
    path = tmp_path / "pubsub.yaml"
    path.write_text(text)
    await apply_resources(path, server.engine)


async def test_a_file_can_be_applied_again(server: EmulatorServer, tmp_path: Path) -> None:
    """The second time changes nothing."""
    registry = server.engine.registry
    await apply(server, tmp_path, FILE)
    topic = registry.topic("projects/p/topics/orders")
    subscription = registry.subscription("projects/p/subscriptions/orders.billing")
    before = (topic.row.body, subscription.row.body)

    await apply(server, tmp_path, FILE)

    assert (topic.row.body, subscription.row.body) == before
    assert topic.proto.message_retention_duration.seconds == 86_400
    assert topic.proto.schema_settings.schema == "projects/p/schemas/order"
    assert subscription.proto.topic == "projects/p/topics/orders"
    assert subscription.proto.ack_deadline_seconds == 30
    assert subscription.proto.retry_policy.maximum_backoff.seconds == 60
    assert subscription.proto.dead_letter_policy.max_delivery_attempts == 7
    assert subscription.proto.push_config.push_endpoint == "http://localhost:8080/orders"
    assert len(registry.schemas["projects/p/schemas/order"].proto.schemas) == 1


async def test_what_exists_gets_the_fields_of_the_file(
    server: EmulatorServer, tmp_path: Path
) -> None:
    """And keeps the others."""
    await apply(server, tmp_path, FILE)

    changed = "\n".join(FILE.splitlines()[:-2]).replace("ackDeadlineSeconds: 30", "labels: {a: b}")
    await apply(server, tmp_path, changed.replace("max_delivery_attempts: 7", ""))

    registry = server.engine.registry
    subscription = registry.subscription("projects/p/subscriptions/orders.billing").proto
    assert dict(subscription.labels) == {"a": "b"}
    assert subscription.ack_deadline_seconds == 30
    assert subscription.dead_letter_policy.max_delivery_attempts == 5
    assert subscription.push_config.push_endpoint


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("topics: {a: b}", 1, ["topics", "list"]),
        ("topcs: []", 1, ["topcs", "unknown"]),
        ("topics:\n  - name: orders", 2, ["topics[0].name", "project"]),
        ("project: p\ntopics:\n  - lables: {}", 3, ["topics[0].lables", "no such field"]),
        ("project: p\ntopics:\n  - labels: {}", 3, ["topics[0].name", "missing"]),
        ("project: p\ntopics:\n  - name: a\n    name: b", 4, ["topics[0].name", "twice"]),
        ("project: p\ntopics:\n  - name: x", 3, ["projects/p/topics/x", "3 to 255"]),
        (
            "project: p\ntopics:\n  - name: orders\n    message_retention_duration: soon",
            4,
            ["topics[0].message_retention_duration", "soon"],
        ),
        (
            "project: p\nsubscriptions:\n  - name: sub\n    dead_letter_policy:\n      attempts: 5",
            5,
            ["subscriptions[0].dead_letter_policy.attempts"],
        ),
        (
            "project: p\nsubscriptions:\n  - name: sub\n    topic: nowhere",
            3,
            ["projects/p/subscriptions/sub", "not found"],
        ),
        ("topics: [", 1, []),
    ],
)
async def test_a_mistake_names_file_line_and_field(
    server: EmulatorServer, tmp_path: Path, text: str, line: int, words: list[str]
) -> None:
    """The file's author finds it at once."""
    with pytest.raises(ResourcesError) as refused:
        await apply(server, tmp_path, text)

    assert str(refused.value).startswith(f"{tmp_path / 'pubsub.yaml'}:{line}: ")
    for word in words:
        assert word in str(refused.value)


async def test_what_cannot_be_changed_is_a_mistake(server: EmulatorServer, tmp_path: Path) -> None:
    """At the line of the field."""
    await apply(server, tmp_path, FILE)

    with pytest.raises(ResourcesError, match=r"yaml:17: .* filter: .*can't be changed"):
        await apply(server, tmp_path, FILE.replace('"paid"', '"unpaid"'))
