"""Celery's thread pool (``-P threads``), with a cold stop that does not wait for its threads."""

from __future__ import annotations

from typing import Any

from celery.concurrency import thread

__all__ = ["ThreadPool"]

#: How soon a stopping pool notices that it was abandoned.
_TICK_SECONDS = 0.2


class ThreadPool(thread.TaskPool):
    """Runs jobs in threads, which nobody can stop: a cold stop leaves them to the process's end."""

    #: Celery's; missing in celery-types.
    executor: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._abandoned = False

    @property
    def has_left_threads(self) -> bool:
        """True if :meth:`abandon` was called, and jobs run that the interpreter would wait for."""
        return self._abandoned and any(each.is_alive() for each in self._all_threads)

    def abandon(self) -> None:
        """Have :meth:`on_stop` wait no longer. Safe in a signal handler."""
        self._abandoned = True

    def on_stop(self) -> None:
        """Take back what has not begun, and wait for what runs, unless it is abandoned."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        for each in self._all_threads:
            while each.is_alive() and not self._abandoned:
                each.join(_TICK_SECONDS)

    @property
    def _all_threads(self) -> list[Any]:
        return list(self.executor._threads)
