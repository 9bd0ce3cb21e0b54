"""JSON as a type that pydantic can validate, with an error that says what it is the value of."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from convotic_celery.errors import InvalidField

__all__ = ["validate_json"]


def validate_json(what: str, text: str | bytes, wanted: Any) -> Any:
    """Return the JSON as the type ``wanted``; raises InvalidField, which begins with ``what``."""
    try:
        return _adapter(wanted).validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise InvalidField(
            f"{what} is not a valid {error.title}: {where}{': ' if where else ''}{problem['msg']}"
        ) from None


def _adapter(wanted: Any) -> TypeAdapter[Any]:
    try:
        return _cached_adapter(wanted)
    except TypeError:  # not hashable, as Annotated[int, Field(...)] is not
        return TypeAdapter(wanted)


@lru_cache(maxsize=256)
def _cached_adapter(wanted: Any) -> TypeAdapter[Any]:
    return TypeAdapter(wanted)
