"""How a settlement travels through Celery, from a run to the worker's request.

Celery knows three ends of a task that did not return, and each carries it: :class:`RunRetried` is
Celery's ``Retry`` (it publishes nothing when it is *raised*, only ``Task.retry`` does),
:class:`RunIgnored` its ``Ignore``; a failed run raises the handler's own error, as agents and
signals expect, so there the record that Celery makes of it is marked (:func:`mark`). All of them
pickle, for prefork. :func:`carried` reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]  # not in celery-types
from celery.exceptions import Ignore, Retry
from celery.utils.serialization import get_pickleable_exception
from kombu.utils.encoding import safe_repr

if TYPE_CHECKING:
    from billiard.einfo import ExceptionInfo

    from convotic_celery.runtime.delivery.settlement import Ack, Defer, RetryRun, Settlement

__all__ = ["RunIgnored", "RunRetried", "carried", "error_of", "mark"]


class RunRetried(Retry):
    """The message is delivered again: its run failed, or its handler was not called."""

    def __init__(self, error: Exception | None, settlement: RetryRun | Defer) -> None:
        # Retry's own asks the error whether it is true, which a handler's error may answer badly.
        Exception.__init__(self, error, settlement)
        self.message = None
        self.exc = None if error is None else get_pickleable_exception(error)
        self.excs = safe_repr(error)
        self.when: Any = round(settlement.delay_seconds, 3)
        self.is_eager = False
        self.sig = None
        self.settlement = settlement

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.exc, self.settlement)


class RunIgnored(Ignore):
    """The message is acknowledged although its handler did not do it."""

    def __init__(self, settlement: Ack) -> None:
        super().__init__(settlement)
        self.settlement = settlement

    def __str__(self) -> str:
        return self.settlement.reason


def mark(info: ExceptionInfo, settlement: Settlement | None) -> None:
    """Have Celery's record of a failed run carry what becomes of its message."""
    if settlement is not None:
        info.settlement = settlement  # type: ignore[attr-defined]  # it pickles with all it has


def carried(info: ExceptionInfo) -> Settlement | None:
    """Return the settlement that came with a run's end; None if no run of ours ended so."""
    found: Settlement | None = getattr(info, "settlement", None)
    return found or getattr(error_of(info), "settlement", None)


def error_of(info: ExceptionInfo) -> Any:
    """Return the error itself, which billiard wraps."""
    error = info.exception
    return error.exc if isinstance(error, ExceptionWithTraceback) else error
