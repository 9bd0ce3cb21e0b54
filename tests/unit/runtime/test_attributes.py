"""The framework's message attributes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from convotic_celery.runtime.delivery.attributes import (
    Origin,
    cut_utf8,
    dead_letter_attributes,
    replay_count,
    trace_attributes,
    user_attributes,
)
from convotic_celery.runtime.delivery.settlement import Fail
from tests.unit.runtime.support import PUBLISHED_AT

NOW = datetime(2026, 11, 23, 21, 0, tzinfo=UTC)


def test_the_framework_s_attributes_do_not_show() -> None:
    """Only what the publisher wrote is left."""
    attributes = {
        "source": "api",
        "convotic-target": "q",
        "googclient_traceparent": "x",
        "traceparent": "y",
        "tracestate": "z",
        "traceparents": "mine",
    }

    assert user_attributes(attributes) == {"source": "api", "traceparents": "mine"}


def test_trace_context_is_found_under_both_names() -> None:
    """W3C's name wins over that of Google's older clients."""
    attributes = {"googclient_traceparent": "old", "traceparent": "new", "tracestate": "s"}

    assert trace_attributes(attributes) == {"traceparent": "new", "tracestate": "s"}
    assert trace_attributes({"googclient_traceparent": "old"}) == {"traceparent": "old"}


@pytest.mark.parametrize(
    ("attributes", "count"),
    [({}, 0), ({"convotic-replay-count": "3"}, 3), ({"convotic-replay-count": "-x"}, 0)],
)
def test_the_replay_count_is_a_number(attributes: dict[str, str], count: int) -> None:
    """Anybody can publish anything: what is no number counts as 0."""
    assert replay_count(attributes) == count


def test_a_dead_letters_attributes_stand_in_order_of_importance() -> None:
    """The transport leaves off from the end; delivery.md fixes the order."""
    attributes = dead_letter_attributes(
        Fail("max-retries-exceeded", 3, "ValueError", "no", replay_token="t"),
        Origin(
            message_id="m-1",
            subscription="orders.new.shop",
            topic="orders.new",
            published_at=PUBLISHED_AT,
        ),
        now=NOW,
    )

    assert list(attributes.items()) == [
        ("convotic-dead-letter-reason", "max-retries-exceeded"),
        ("convotic-dead-letter-message-id", "m-1"),
        ("convotic-dead-letter-attempts", "3"),
        ("convotic-dead-letter-subscription", "orders.new.shop"),
        ("convotic-dead-letter-topic", "orders.new"),
        ("convotic-dead-letter-error-type", "ValueError"),
        ("convotic-dead-letter-error-message", "no"),
        ("convotic-dead-letter-published-at", "2026-11-23T20:00:00+00:00"),
        ("convotic-dead-letter-at", "2026-11-23T21:00:00+00:00"),
        ("convotic-replay-token", "t"),
        ("convotic-replay-count", "0"),
    ]


@pytest.mark.parametrize("text", ["a" * 1025, "ä" * 513, "a" + "€" * 400, "\ud800" * 2000])
def test_values_are_cut_at_a_characters_edge(text: str) -> None:
    """At most 1,024 bytes of valid UTF-8, and no more is lost than one character."""
    cut = cut_utf8(text)

    assert 1024 - 3 <= len(cut.encode()) <= 1024


def test_short_values_stay_as_they_are() -> None:
    """Nothing is cut that fits."""
    assert cut_utf8("ä" * 512) == "ä" * 512
