"""The options ``retry_on`` and ``no_retry_on``: which of a handler's errors to retry."""

from __future__ import annotations

import builtins
import importlib
from collections.abc import Iterable
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, PlainSerializer

__all__ = ["ErrorTypes", "dotted_name"]


def dotted_name(cls: type) -> str:
    """Return ``package.module.Class``; builtins without their module."""
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )


def _to_error_types(value: Any) -> Any:
    given = (
        [value] if isinstance(value, str | type) or not isinstance(value, Iterable) else [*value]
    )
    return tuple(_to_error_type(each) for each in given)


def _to_error_type(value: Any) -> type[Exception]:
    found = _import(value) if isinstance(value, str) else value
    if not isinstance(found, type) or not issubclass(found, Exception):
        raise ValueError(f"{value!r} is not an exception class")  # noqa: TRY004 - pydantic catches it
    return found


def _import(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    if not module:
        return getattr(builtins, name, None)
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise ValueError(f"{name!r} can't be imported: {error}") from None


#: One class or several; as text, their dotted names (``"TimeoutError"``, ``"httpx.HTTPError"``).
ErrorTypes: TypeAlias = Annotated[
    tuple[type[Exception], ...],
    BeforeValidator(_to_error_types),
    PlainSerializer(lambda types: [dotted_name(each) for each in types], return_type=list[str]),
]
