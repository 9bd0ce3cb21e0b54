"""Celery's envelope: what headers may hold, how large it gets, and when a message is due."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from kombu.utils.json import dumps

from convotic_pubsub.celery.codec import decode_envelope, encode_envelope
from convotic_pubsub.celery.envelope import EnvelopePolicy, check_eta
from convotic_pubsub.errors import DelayTooLong
from convotic_pubsub.queue import DeadLetter, Decision, Defer, Deliver, Received

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def make_message(body: str | bytes = "[[], {}, {}]", **headers: Any) -> dict[str, Any]:
    return {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"id": "1", **headers},
        "properties": {"delivery_info": {}},
    }


def decide(data: bytes, *, redelivered: bool = False) -> Decision:
    received = Received("celery", "17", data, {}, "", NOW, 1, redelivered=redelivered)
    return EnvelopePolicy(lambda: NOW).decide(received)


@pytest.mark.parametrize(
    "value",
    [NOW, NOW.date(), UUID(int=7), Decimal("1.10"), b"\xff\x00", b"text", {"at": [NOW]}],
)
def test_a_header_holds_what_kombus_json_holds(value: Any) -> None:
    """Dates, UUIDs, Decimals and bytes travel, as over Redis; stamps are such headers."""
    message = make_message(stamp=value)

    assert decode_envelope(encode_envelope(message)) == message


def test_characters_are_not_escaped_twice() -> None:
    """4 MB of é stay 4 MB, though Celery's JSON has each as six characters."""
    arguments = [["é" * 2_000_000], {}, {}]

    data = encode_envelope(make_message(dumps(arguments)))

    assert len(data) < 4_001_000
    assert json.loads(decode_envelope(data)["body"]) == arguments


@pytest.mark.parametrize("text", ["\ud800", "\\u00e9", '"\\"', "\u2028\x00😀"])
def test_any_text_survives(text: str) -> None:
    """Lone surrogates, backslashes before what looks like an escape, quotes, control characters."""
    arguments = [[text], {text: 1}, {}]

    data = encode_envelope(make_message(dumps(arguments)))

    assert json.loads(decode_envelope(data)["body"]) == arguments


def test_a_binary_body_costs_its_size() -> None:
    """Neither base64 nor escapes: compressed and pickled tasks are as long as they are."""
    body = bytes(range(256)) * 4_000

    data = encode_envelope(make_message(body))

    assert len(data) < len(body) + 300
    assert decode_envelope(data)["body"] == body


@pytest.mark.parametrize(
    "changes",
    [
        {"properties": {"delivery_info": 5}},
        {"properties": []},
        {"headers": None},
        {"body": 5},
        {"body": None},
        {"content-type": 7},
        {"content-encoding": ["utf-8"]},
        {"body": "é", "properties": {"body_encoding": "base64"}},
    ],
)
def test_an_envelope_with_a_wrong_type_is_a_value_error(changes: dict[str, Any]) -> None:
    """So it is a dead letter, or dropped, where it arrives, and reaches no worker's loop."""
    data = json.dumps({**make_message(), **changes}).encode()

    with pytest.raises(ValueError, match=r"."):
        decode_envelope(data)
    assert isinstance(decide(data), DeadLetter)


def test_the_old_wire_form_is_read() -> None:
    """The body in the JSON, as people write it by hand, on one line or several."""
    for indent in (None, 2):
        data = json.dumps(make_message("[[1], {}, {}]"), indent=indent).encode()

        assert decode_envelope(data)["body"] == "[[1], {}, {}]"


def test_raw_data_has_no_envelope() -> None:
    """Its content type would have an ordinary task run on bytes that are never settled."""
    data = encode_envelope({**make_message(), "content-type": "application/x-pubsub-raw"})

    decision = decide(data)

    assert isinstance(decision, DeadLetter)
    assert decision.attributes["convotic-dead-letter-reason"] == "invalid"


@pytest.mark.parametrize(
    ("eta", "expected"),
    [
        (None, None),
        (NOW - timedelta(hours=1), None),
        (NOW + timedelta(seconds=9), None),
        (NOW + timedelta(hours=1), 3598.0),
        ((NOW + timedelta(hours=1)).replace(tzinfo=None), 3598.0),
        ("2026-11-27T13:00:00Z", 3598.0),
        ("no date", None),
    ],
)
def test_a_message_that_is_not_due_is_held_back(eta: Any, expected: float | None) -> None:
    """Until shortly before it is due: it takes no room that others need."""
    given = eta.isoformat() if isinstance(eta, datetime) else eta

    decision = decide(encode_envelope(make_message(eta=given)))

    if expected is None:
        assert isinstance(decision, Deliver)
    else:
        assert decision == Defer(expected)


def test_a_task_that_is_due_when_its_message_is_gone_is_refused() -> None:
    """Pub/Sub keeps it for seven days; an hour of them is left to run it."""
    soon, late = (datetime.now(UTC) + timedelta(days=days) for days in (6.9, 7))

    check_eta(make_message(eta=soon.isoformat()))

    with pytest.raises(DelayTooLong, match="601,200 seconds"):
        check_eta(make_message(eta=late.isoformat()))


def test_a_redelivery_is_marked() -> None:
    """As AMQP's flag, which Celery's ``worker_deduplicate_successful_tasks`` looks at."""
    first, again = (
        decide(encode_envelope(make_message()), redelivered=each) for each in (False, True)
    )

    assert isinstance(first, Deliver)
    assert isinstance(again, Deliver)
    assert "redelivered" not in first.payload["properties"]["delivery_info"]
    assert again.payload["properties"]["delivery_info"]["redelivered"] is True
