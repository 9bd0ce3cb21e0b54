"""Errors of the worker itself: it has no file descriptors or threads left.

No message is failed for these. The run that meets one waits in its slot, so that its handler takes
nothing else meanwhile, and is then deferred. One line a minute says so.
"""

from __future__ import annotations

import errno
import logging
import threading
import time

__all__ = ["NO_THREAD", "PAUSE_SECONDS", "find_worker_fault", "report_fault"]

logger = logging.getLogger(__name__)

#: How long a handler stands still before the next try.
PAUSE_SECONDS = 5.0
_REPORT_SECONDS = 60.0

_FAULTS = {
    errno.EMFILE: "this process has no file descriptors left",
    errno.ENFILE: "this machine has no file descriptors left",
}
#: What Python raises then.
NO_THREAD = "can't start new thread"

#: Causes of causes that are looked at.
_MAX_DEPTH = 20


def find_worker_fault(error: BaseException) -> str | None:
    """Return what the worker lacks, if an error or one of its causes says so."""
    try:
        return _find(error)
    except Exception:  # noqa: BLE001 - a handler's error may not even let its cause be read
        return None


def _find(error: BaseException) -> str | None:
    each: BaseException | None = error
    for _ in range(_MAX_DEPTH):
        if isinstance(each, OSError) and each.errno in _FAULTS:
            return _FAULTS[each.errno]
        if type(each) is RuntimeError and each.args == (NO_THREAD,):
            return "this process can't start another thread"
        each = each and (each.__cause__ or each.__context__)
    return None


class _Report:
    """When the last line was written."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0

    def is_due(self) -> bool:
        """Return True once a minute."""
        now = time.monotonic()
        with self._lock:
            if now < self._next:
                return False
            self._next = now + _REPORT_SECONDS
            return True


_report = _Report()


def report_fault(handler: str, fault: str) -> None:
    """Log that a handler stands still; at most once a minute for all of the process."""
    if _report.is_due():
        logger.error(
            "%s stands still: %s. Its messages wait and none fails for it; restart this worker, "
            "or give it more",
            handler,
            fault,
            extra={"action": "worker_fault", "handler": handler},
        )
