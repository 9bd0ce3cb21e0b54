"""A handler's first argument, :class:`WorkerMessage`; how its data is decoded and validated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic

from pydantic import ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import from_json
from typing_extensions import TypeVar

from convotic_celery.errors import InvalidMessage
from convotic_celery.sdk.infinite import find_infinite
from convotic_celery.sdk.payload_type import check_bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from pydantic import TypeAdapter

    from convotic_celery.sdk.event import CloudEvent
    from convotic_celery.sdk.payload_type import PayloadType

__all__ = ["WorkerMessage", "decode_json", "find_schema_problem", "validate_json"]

DataT_co = TypeVar("DataT_co", covariant=True, default=Any)

#: Longest reason of an :class:`InvalidMessage`. It becomes an attribute of the dead letter, where
#: Pub/Sub allows 1,024 bytes.
_MAX_REASON_CHARACTERS = 300
_MAX_PROBLEMS = 3
#: Pydantic describes all or none, which takes seconds for a million.
_MAX_DESCRIBED = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerMessage(Generic[DataT_co]):
    """One message, as its handler sees it.

    With the annotation ``WorkerMessage[Order]`` the data is validated as ``Order`` before the
    handler is called; a bare ``WorkerMessage`` has the parsed JSON.
    """

    #: Pub/Sub's message id; the same for every redelivery, and for a replay of the dead letter.
    id: str
    #: The payload: parsed JSON, or the payload type. None if the message has no data.
    #: Left out of ``repr``, so that logs and tracebacks don't show it.
    data: DataT_co = field(repr=False)
    #: The publisher's attributes, without those of the framework.
    attributes: Mapping[str, str]
    #: When Pub/Sub accepted the message; timezone-aware, UTC.
    published_at: datetime
    #: "" if the message was published without one.
    ordering_key: str = ""
    #: 1 on the first run, 2 on the first retry.
    attempt: int = 1
    #: The CloudEvent's attributes, with the option ``cloud_events``; otherwise None.
    event: CloudEvent | None = None


def decode_json(raw: bytes) -> Any:
    """Return the parsed JSON, None for empty data; raises InvalidMessage if it is not JSON."""
    if not raw:
        return None
    _check(raw)
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidMessage(f"data is not JSON: {_shorten(str(error))}") from None


def validate_json(raw: bytes, kind: PayloadType) -> Any:
    """Return the data as this type; empty data counts as JSON's ``null``.

    Raises InvalidMessage, which names the first few invalid fields, never their values.
    """
    _check(raw)
    try:
        return kind.validate_json(raw or b"null")
    except ValidationError as error:
        raise InvalidMessage(_describe(error, empty=not raw)) from None
    except RecursionError:
        raise InvalidMessage("data is nested too deeply") from None


def find_schema_problem(make_adapter: Callable[[], TypeAdapter[Any]]) -> str | None:
    """Return why this adapter can't validate data, in one sentence; None if it can."""
    try:
        len(make_adapter().core_schema)
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        # The rest is for authors of pydantic types.
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")
        return (
            f"{reason}. Use a pydantic model, a dataclass, a TypedDict, or a type built from these."
        )
    return None


def _check(raw: bytes) -> None:
    check_bounds(raw)
    if (number := find_infinite(raw)) is not None:
        raise InvalidMessage(f"data has a number that is out of range: {number}")


def _describe(error: ValidationError, *, empty: bool) -> str:
    if error.error_count() > _MAX_DESCRIBED:
        return _shorten(
            f"data is not a valid {error.title}: {error.error_count():,} values are wrong"
        )
    # include_input and include_context stay out: they carry parts of the payload.
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    if empty:
        return f"data is empty, which is not a valid {error.title}"
    if problems[0]["type"] == "json_invalid":
        return f"data is not JSON: {_shorten(problems[0]['msg'].removeprefix('Invalid JSON: '))}"
    shown = [
        _describe_problem(problem["loc"], problem["msg"]) for problem in problems[:_MAX_PROBLEMS]
    ]
    more = len(problems) - len(shown)
    text = "; ".join(shown) + (f" (and {more} more)" if more else "")
    return _shorten(f"data is not a valid {error.title}: {text}")


def _describe_problem(location: tuple[int | str, ...], text: str) -> str:
    return f"{'.'.join(map(str, location))}: {text}" if location else text


def _shorten(text: str) -> str:
    if len(text) <= _MAX_REASON_CHARACTERS:
        return text
    return f"{text[: _MAX_REASON_CHARACTERS - 1]}…"
