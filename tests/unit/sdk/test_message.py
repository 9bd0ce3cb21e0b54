"""Decoding of a message's data, with and without a payload model."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from convotic_celery.errors import InvalidMessage
from convotic_celery.sdk import ConvoticModule, HandlerDefinition, WorkerMessage
from convotic_celery.sdk.message import decode_json
from tests.support.generated import patient

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


class Order(BaseModel):
    id: int
    total: Decimal = Decimal(0)
    lines: list[int] = []


class Measurement(BaseModel):
    value: float


def define(handler: Any) -> HandlerDefinition:
    module = ConvoticModule("crm", "1")
    options: Any = {"cloud_events": "require"} if handler is event else {}
    module.worker("custom.orders.new", **options)(handler)
    (definition,) = module.collect_handlers()
    return definition


async def typed(message: WorkerMessage[Order], ctx: Any) -> None: ...
async def measured(message: WorkerMessage[Measurement], ctx: Any) -> None: ...
async def event(message: WorkerMessage, ctx: Any) -> None: ...
async def optional(message: WorkerMessage[Order | None], ctx: Any) -> None: ...
async def untyped(message: WorkerMessage, ctx: Any) -> None: ...


@patient
@given(JSON)
def test_any_json_is_decoded(value: object) -> None:
    """What a producer's JSON library writes is what the handler gets."""
    assert define(untyped).decode_data(json.dumps(value).encode()) == value


def test_typed_data_is_the_model() -> None:
    """Decimals are read from the digits that were sent."""
    assert define(typed).decode_data(b'{"id": 1, "total": 29.33}') == Order(
        id=1, total=Decimal("29.33")
    )


def test_message_without_data_has_none() -> None:
    """A message may have attributes only."""
    assert define(untyped).decode_data(b"") is None
    assert define(optional).decode_data(b"") is None


def test_message_without_data_is_no_order() -> None:
    """A model that does not admit None is never None."""
    with pytest.raises(InvalidMessage, match="data is empty, which is not a valid Order"):
        define(typed).decode_data(b"")


@pytest.mark.parametrize("raw", [b"not json", b'{"id": 1', b"\xff\xfe", b'{"id": 1} x'])
@pytest.mark.parametrize("handler", [typed, untyped])
def test_what_is_no_json_is_invalid(raw: bytes, handler: Any) -> None:
    """The reason names the cause, with and without a model."""
    with pytest.raises(InvalidMessage, match="data is not"):
        define(handler).decode_data(raw)


@pytest.mark.parametrize(
    "number",
    ["1e400", "-1E+0999", "9e308", "1" + "0" * 211 + "e99", "NaN", "-Infinity", "2" * 400 + ".0"],
)
@pytest.mark.parametrize("handler", [measured, untyped, event])
def test_a_number_that_no_float_holds_is_invalid(number: str, handler: Any) -> None:
    """It became infinity, which no JSON can carry on; a route answers 400 to the same."""
    text = f'{{"id": "3e412", "value": {number}}}'
    attributes = {"content-type": "application/cloudevents+json"} if handler is event else {}

    with pytest.raises(InvalidMessage, match="a number that is out of range: ") as invalid:
        define(handler).decode(text.encode(), attributes)

    assert number[:40] in invalid.value.reason
    with pytest.raises(InvalidMessage, match="out of range"):  # behind much else
        decode_json(b'{"text": "%b", "values": [%b]}' % (b"x" * 300_000, number.encode()))


def test_what_only_looks_like_such_a_number_is_read() -> None:
    """In text, and at the edge of what a float holds."""
    text = '["1e400 NaN", ", 1e400", "c3e41290-1e99-4e55", 1.7e308, -1E+0308, 1e-400, 2e00001]'

    assert decode_json(text.encode()) == json.loads(text)
    assert decode_json(b"9" * 300) == int("9" * 300)


@patient
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read(value: float) -> None:
    """However it is written."""
    for text in (repr(value), f"{value:.17e}", f"{value:+.17E}"[1:]):
        assert decode_json(f"[{text}]".encode()) == json.loads(f"[{text}]")


def test_deep_nesting_is_invalid_and_no_crash() -> None:
    """A hostile message does not take the process down."""
    raw = b"[" * 100_000 + b"]" * 100_000

    for handler in (typed, untyped):
        with pytest.raises(InvalidMessage):
            define(handler).decode_data(raw)


def test_reason_names_fields_and_no_values() -> None:
    """The reason goes to logs and attributes: nothing of the payload is in it."""
    with pytest.raises(InvalidMessage) as invalid:
        define(typed).decode_data(b'{"id": "hunter2", "total": "hunter2"}')

    assert "id: Input should be a valid integer" in invalid.value.reason
    assert "total: " in invalid.value.reason
    assert "hunter2" not in invalid.value.reason
    assert invalid.value.__cause__ is None


def test_reason_is_short_however_much_is_wrong() -> None:
    """Three problems are named, the rest is counted."""
    lines = json.dumps(["x"] * 500)

    with pytest.raises(InvalidMessage, match="and 497 more") as invalid:
        define(typed).decode_data(f'{{"id": 1, "lines": {lines}}}'.encode())

    assert len(invalid.value.reason.encode()) < 1_024


def test_message_is_frozen_and_hides_its_data() -> None:
    """A message in a log line or a traceback does not show what it carries."""
    message = WorkerMessage(
        id="1", data={"card": "hunter2"}, attributes={}, published_at=datetime.now(UTC)
    )

    with pytest.raises(AttributeError):
        message.id = "2"  # type: ignore[misc]  # the point of the test
    assert "hunter2" not in repr(message)
    assert pickle.loads(pickle.dumps(message)) == message
