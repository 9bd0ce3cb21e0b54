"""Keys of messages: paths and functions, checked when the handler registers."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from convotic_celery.errors import InvalidMessage, ModuleError
from convotic_celery.sdk import ConvoticModule, WorkerMessage, WorkerOptions
from convotic_celery.sdk.selector import select_key


class Customer(BaseModel):
    """Who orders."""

    id: str


class Order(BaseModel):
    """A payload model."""

    id: int
    customer: Customer = Customer(id="c-1")


class Color(Enum):
    """A key by its value."""

    RED = "red"


def make_message(data: Any = None, **fields: Any) -> WorkerMessage[Any]:
    return WorkerMessage(
        **{
            "id": "m-1",
            "data": data,
            "attributes": {"tenant.name": "a"},
            "published_at": datetime.now(UTC),
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("selector", "data", "key"),
    [
        ("message.id", None, "m-1"),
        ("attributes.tenant.name", None, "a"),
        ("data.id", {"id": 7}, "7"),
        ("data.customer.id", Order(id=7), "c-1"),
        ("data.on", {"on": date(2026, 1, 2)}, "2026-01-02"),
        ("data.price", {"price": Decimal("1.50")}, "1.50"),
        ("data.color", {"color": Color.RED}, "red"),
        (lambda message: f"{message.id}!", None, "m-1!"),
        (lambda _: uuid.UUID(int=1), None, "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_keys(selector: Any, data: Any, key: str) -> None:
    """Text of what has one obvious form as text."""
    assert select_key(selector, make_message(data)) == key


@pytest.mark.parametrize("value", [None, "", True, 1.5, [1], {"a": 1}])
def test_what_is_no_key_makes_the_message_invalid(value: Any) -> None:
    """1 and 1.0 would be two keys, a list none at all; the value itself is not told."""
    with pytest.raises(InvalidMessage, match=r"data\.id can't be this"):
        select_key("data.id", make_message({"id": value}))


def test_a_long_key_is_hashed() -> None:
    """Two long ones stay apart."""
    keys = {select_key("data.id", make_message({"id": "x" * 500 + end})) for end in "ab"}

    assert len(keys) == 2
    assert all(key.startswith("sha256:") and len(key) < 100 for key in keys)


@pytest.mark.parametrize("selector", ["id", "data", "data.", "message.data", "data..id", ""])
def test_what_is_no_path_is_refused(selector: str) -> None:
    """With what there is."""
    with pytest.raises(ValidationError, match="is not a key"):
        WorkerOptions(deduplicate=selector)


def test_an_async_key_is_refused() -> None:
    """It is called, not awaited."""

    async def key(message: WorkerMessage[Any]) -> str:
        return message.id

    with pytest.raises(ValidationError, match="plain def"):
        WorkerOptions(concurrency_key=key)


def test_a_field_that_the_model_has_not_is_refused() -> None:
    """When the handler registers, with those it has."""
    module = ConvoticModule(name="shop", version="1")

    def handle(message: WorkerMessage[Order], ctx: Any) -> None: ...

    with pytest.raises(ModuleError, match=r"Order has no field 'idd'; it has customer, id"):
        module.worker("orders", deduplicate="data.idd")(handle)


def test_options_show_functions_by_name() -> None:
    """In `convotic handlers --json` and the AsyncAPI document."""
    options = WorkerOptions(deduplicate=make_message, retry_on=[OSError, "LookupError"])

    shown = options.model_dump(mode="json")

    assert shown["deduplicate"].endswith("test_selector.make_message")
    assert shown["retry_on"] == ["OSError", "LookupError"]
