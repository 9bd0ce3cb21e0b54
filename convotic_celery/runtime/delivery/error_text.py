"""An error's class, text and stack, whatever its own methods do. Pure."""

from __future__ import annotations

import traceback
from types import TracebackType

from convotic_celery.errors import ConvoticError
from convotic_celery.log.tracebacks import FRAMEWORK
from convotic_celery.sdk.error_types import dotted_name

__all__ = [
    "UnreadableError",
    "error_stack",
    "error_text",
    "error_type",
    "find_author_frame",
    "make_readable",
]

_MAX_STACK_BYTES = 1_000


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


def find_author_frame(error: BaseException) -> TracebackType | None:
    """Return the traceback of an error from the author's first frame on; None if there is none."""
    found = error.__traceback__
    while found is not None and _module_of(found).partition(".")[0] in FRAMEWORK:
        found = found.tb_next
    return found


def error_stack(error: BaseException) -> str:
    """Return the author's frames, outermost first, a line each: ``package.module:function``.

    Without line numbers, so that it stays the same when lines move. What is repeated by a recursion
    stands once, and the middle of a long one is left out.
    """
    frames: list[str] = []
    found = find_author_frame(error)
    while found is not None:
        frame = f"{_module_of(found)}:{found.tb_frame.f_code.co_qualname}"
        if not frames or frames[-1] != frame:
            frames.append(frame)
        found = found.tb_next
    while len("\n".join(frames).encode("utf-8", "replace")) > _MAX_STACK_BYTES and len(frames) > 1:
        frames.pop(len(frames) // 2)
    return "\n".join(frames)


def _module_of(entry: TracebackType) -> str:
    return str(entry.tb_frame.f_globals.get("__name__", "?"))


def make_readable(error: Exception) -> Exception:
    """Return an error that can be logged, compared and chained: itself, nearly always."""
    try:
        # As logging and billiard do; it asks each error of the chain whether it is true.
        traceback.TracebackException.from_exception(error, limit=0, lookup_lines=False)
    except Exception:  # noqa: BLE001 - a user's method may raise anything
        return UnreadableError(f"{error_type(error)}: {error_text(error)}")
    return error
