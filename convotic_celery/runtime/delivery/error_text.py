"""An error's class and text, whatever its own methods do. Pure."""

from __future__ import annotations

from convotic_celery.sdk.error_types import dotted_name

__all__ = ["error_text", "error_type"]


def error_type(error: BaseException) -> str:
    """Return the dotted name of an error's class; builtins without their module."""
    return dotted_name(type(error))


def error_text(error: BaseException) -> str:
    """Return ``str(error)``; a note instead if that raises or is no text."""
    try:
        return str.__str__(str(error))
    except Exception as broken:  # noqa: BLE001 - a user's __str__ may raise anything
        return f"<no text: __str__ raised {type(broken).__name__}>"
