"""An error's class and text, whatever its own methods do. Pure."""

from __future__ import annotations

import traceback

from convotic_celery.errors import ConvoticError
from convotic_celery.sdk.error_types import dotted_name

__all__ = ["UnreadableError", "error_text", "error_type", "make_readable"]


class UnreadableError(ConvoticError):
    """Stands for an error of a handler whose own methods raise when it is logged."""


def error_type(error: BaseException) -> str:
    """Return the dotted name of an error's class; builtins without their module."""
    return dotted_name(type(error))


def error_text(error: BaseException) -> str:
    """Return ``str(error)``; a note instead if that raises or is no text."""
    try:
        return str.__str__(str(error))
    except Exception as broken:  # noqa: BLE001 - a user's __str__ may raise anything
        return f"<no text: __str__ raised {type(broken).__name__}>"


def make_readable(error: Exception) -> Exception:
    """Return an error that can be logged, compared and chained: itself, nearly always."""
    try:
        # As logging and billiard do; it asks each error of the chain whether it is true.
        traceback.TracebackException.from_exception(error, limit=0, lookup_lines=False)
    except Exception:  # noqa: BLE001 - a user's method may raise anything
        return UnreadableError(f"{error_type(error)}: {error_text(error)}")
    return error
