"""What a handler raises that is no :class:`Exception`: it ends neither a thread nor a loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from billiard.common import terminate_handler_fired  # type: ignore[attr-defined]  # untyped
from celery.exceptions import WorkerShutdown, WorkerTerminate

from convotic_celery.runtime.delivery.error_text import error_text, error_type
from convotic_celery.runtime.delivery.settlement import HandlerExited

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["STOPS", "as_exception", "call_for_future", "exited", "stops_worker"]

T = TypeVar("T")

#: A coroutine is stopped by these from outside; what they mean is not for it to say.
STOPS: Final = (asyncio.CancelledError, GeneratorExit)

# Not by isinstance() anywhere: it asks an error for its __class__, which may raise.


def as_exception(raised: BaseException) -> Exception:
    """Return an Exception as it is, and :func:`exited` of anything else."""
    error: Any = raised
    return error if issubclass(type(raised), Exception) else exited(raised)


def exited(raised: BaseException) -> HandlerExited:
    """Return the error of a run that raised SystemExit, say: its message fails, nothing ends."""
    error = HandlerExited(f"the handler raised {error_type(raised)}({error_text(raised)})")
    error.__cause__ = raised
    return error


def call_for_future(function: Callable[..., T], *args: Any) -> T:
    """Call a function whose outcome a future will hold, as ``asyncio.to_thread`` does.

    No future of Python 3.11 can hold StopIteration: who awaits it would wait for ever. It becomes
    RuntimeError, as in a coroutine.
    """
    try:
        return function(*args)
    except StopIteration as raised:
        raise RuntimeError("the call raised StopIteration") from raised


def stops_worker(raised: BaseException) -> bool:
    """Say whether it stops the worker, or ends this child of prefork, whose parent settles."""
    kind = type(raised)
    return issubclass(kind, WorkerShutdown | WorkerTerminate) or (
        issubclass(kind, SystemExit) and bool(terminate_handler_fired())
    )
