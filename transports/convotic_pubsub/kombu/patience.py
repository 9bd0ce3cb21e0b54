"""Whether kombu's producer was asked to retry: it does not pass that on.

With ``retry=True`` it calls the channel by way of ``Connection.ensure``, else directly. So each
connection's ``ensure`` is wrapped, and what is published within it may outlast an outage; else
there is one attempt, and the caller is not blocked for longer than it asked.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["is_retried", "record_retries"]

_retried: ContextVar[bool] = ContextVar("convotic_pubsub_retried", default=False)


def is_retried() -> bool:
    """Say whether the publish under way in this thread is one that is to be retried."""
    return _retried.get()


def record_retries(connection: Any) -> None:
    """Have :func:`is_retried` know of what is called through ``connection.ensure``. Idempotent."""
    ensure = getattr(connection, "ensure", None)
    if ensure is None or getattr(ensure, "notes_retries", False):
        return

    @functools.wraps(ensure)
    def noting(obj: Any, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        @functools.wraps(fun)
        def retried(*fun_args: Any, **fun_kwargs: Any) -> Any:
            token = _retried.set(True)
            try:
                return fun(*fun_args, **fun_kwargs)
            finally:
                _retried.reset(token)

        return ensure(obj, retried, *args, **kwargs)

    noting.notes_retries = True  # type: ignore[attr-defined]  # a mark of ours
    connection.ensure = noting
