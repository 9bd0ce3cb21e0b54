"""How the run of an ordinary task ends: as in Celery, but a rejected message says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.exceptions import Reject
from celery.worker.request import Request
from kombu.utils.encoding import safe_str

from convotic_celery.runtime.delivery.carriers import error_of

if TYPE_CHECKING:
    from billiard.einfo import ExceptionInfo

__all__ = ["Rejected", "TaskRequest"]


class Rejected(Exception):
    """A task raised ``Reject("text")``."""


class TaskRequest(Request):
    """``Request`` of every task of our app but handlers."""

    def on_failure(
        self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """Settle a run that raised. What the task rejects is rejected while its reason is raised.

        So the transport finds the text of the dead letter, which Celery does not pass on.
        """
        try:
            _raise_reason(error_of(exc_info))
        except Exception:  # noqa: BLE001 - not handled, only current
            super().on_failure(exc_info, send_failed_event, return_ok)
        else:
            super().on_failure(exc_info, send_failed_event, return_ok)


def _raise_reason(error: BaseException) -> None:
    """Raise why a task rejects its message for good, if it does."""
    if not isinstance(error, Reject):
        return
    rejected: Any = error  # reason and requeue are missing in celery-types
    if not rejected.requeue:
        reason = rejected.reason
        raise reason if isinstance(reason, Exception) else Rejected(safe_str(reason))
