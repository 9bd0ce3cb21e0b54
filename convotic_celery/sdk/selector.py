"""A message's key: the options ``deduplicate`` and ``concurrency_key``. Pure.

A selector is a path, ``"message.id"``, ``"message.ordering_key"``, ``"data.id"``,
``"data.customer.id"``, ``"attributes.tenant"``, or a function of the message.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from pydantic import BaseModel

from convotic_celery.errors import InvalidMessage

if TYPE_CHECKING:
    from convotic_celery.sdk.message import WorkerMessage

__all__ = [
    "KeySelector",
    "check_parameters",
    "check_selector",
    "describe_callable",
    "find_misfit",
    "select_key",
]

KeySelector: TypeAlias = "str | Callable[[WorkerMessage[Any]], object]"

#: Types with one obvious text form. No floats: 1.0 and 1 would be two keys.
_KEY_TYPES = (str, int, UUID, Decimal, date)
_OF_MESSAGE = ("message.id", "message.ordering_key")
_MAX_PLAIN_CHARACTERS = 200


def check_selector(selector: Any) -> Any:
    """Return the selector; raises a ValueError that says what is allowed."""
    if callable(selector):
        if inspect.iscoroutinefunction(selector):
            raise ValueError("a key function must be a plain def: it is called, not awaited")
        check_parameters(selector, "message")
        return selector
    root, _, rest = selector.partition(".")
    fields = rest.split(".")
    if selector in _OF_MESSAGE or (root in {"data", "attributes"} and all(fields)):
        return selector
    raise ValueError(
        f"{selector!r} is not a key: use 'message.id', 'message.ordering_key', 'data.<field>', "
        "'attributes.<name>' or a function of the message"
    )


def check_parameters(function: Callable[..., object], *names: str) -> None:
    """Raise ValueError unless the function can be called with these arguments."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # a builtin without a signature
    try:
        signature.bind(*names)
    except TypeError as error:
        raise ValueError(
            f"{describe_callable(function)}{signature} can't be called as "
            f"function({', '.join(names)}): {error}"
        ) from None


def find_misfit(selector: KeySelector, payload_type: Any) -> str | None:
    """Return what is wrong with a path into a payload model; None if nothing is known."""
    if not isinstance(selector, str) or not selector.startswith("data."):
        return None
    name = selector.split(".")[1]
    if not isinstance(payload_type, type) or not issubclass(payload_type, BaseModel):
        return None
    known = {*payload_type.model_fields, *payload_type.model_computed_fields}
    if name in known or hasattr(payload_type, name):
        return None
    return f"{payload_type.__name__} has no field {name!r}; it has {', '.join(sorted(known))}"


def select_key(selector: KeySelector, message: WorkerMessage[Any]) -> str:
    """Return the message's key as text; a long one is replaced by its SHA-256.

    Raises:
        InvalidMessage: The message has none, or one that is not a string, number, date or UUID.
    """
    value = _follow(selector, message) if isinstance(selector, str) else selector(message)
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool) or not isinstance(value, _KEY_TYPES) or value == "":
        what = "nothing" if value in (None, "") else f"a {type(value).__name__}"
        raise InvalidMessage(
            f"{describe_callable(selector)} can't be this message's key: it is {what}"
        )
    text = str(value)
    if len(text) <= _MAX_PLAIN_CHARACTERS:
        return text
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()}"


def describe_callable(value: object) -> str:
    """Return a path unchanged, and the dotted name of a function."""
    if isinstance(value, str):
        return value
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    return f"{getattr(value, '__module__', '?')}.{name}"


def _follow(path: str, message: WorkerMessage[Any]) -> Any:
    if path == "message.id":
        return message.id
    if path == "message.ordering_key":
        return message.ordering_key
    root, _, rest = path.partition(".")
    if root == "attributes":  # an attribute's name may contain dots
        return message.attributes.get(rest)
    value: Any = message.data
    for name in rest.split("."):
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return value
