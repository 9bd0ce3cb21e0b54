"""How long a run may still go on: :class:`RunDeadline`, behind ``ctx.extend_ack_deadline``.

A run's time is counted here, in the process that runs it; the lease is kept by the worker, which is
the same process in every pool but prefork.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from celery.worker import state

from convotic_celery.errors import DeadlineNotExtendable

__all__ = ["MAX_RUN_SECONDS", "HoldLease", "RunDeadline", "hold_lease"]

#: The bound of all extensions of a run together; as the largest ``ack_deadline``.
MAX_RUN_SECONDS = 86_400.0

#: Keeps the message's lease for so many seconds from now; False where that is not possible.
HoldLease: TypeAlias = Callable[[float], bool]


def hold_lease(task_id: str, seconds: float) -> bool:
    """Keep a running message's lease; False in a prefork child, which has no part in it."""
    request: Any = state.requests.get(task_id)
    if request is None:
        return False
    request.hold(seconds)
    return True


class RunDeadline:
    """The clock of one run. Made for each; used by that run, and by what it calls."""

    __slots__ = (
        "_begun",
        "_bound",
        "_handler_begun",
        "_hold",
        "_timeout",
        "ends_at",
        "fencing_token",
        "is_lost",
    )

    def __init__(
        self, limit_seconds: float, hold: HoldLease, *, bound_seconds: float | None = None
    ) -> None:
        self._hold = hold
        self._bound = bound_seconds or MAX_RUN_SECONDS
        self._timeout: tuple[asyncio.Timeout, asyncio.AbstractEventLoop] | None = None
        self._begun = self._handler_begun = time.monotonic()
        self.ends_at = self._begun + limit_seconds
        #: Grows with each run of the same key; None without a key.
        self.fencing_token: int | None = None
        #: True once another run may have the key: this one is being stopped.
        self.is_lost = False

    @property
    def granted_seconds(self) -> float:
        """How long the run may take in all."""
        return self.ends_at - self._begun

    @property
    def time_left(self) -> float:
        """Seconds until the run is stopped; 0 when that is past."""
        return max(0.0, self.ends_at - time.monotonic())

    @property
    def handler_seconds(self) -> float:
        """How long the handler has run; what the run waited before that is not counted."""
        return time.monotonic() - self._handler_begun

    def restart(self, limit_seconds: float) -> bool:
        """Restart the run's clock: it has waited until now. False if the lease can't be held.

        Then its end stays what it is; only :attr:`handler_seconds` begins at 0.
        """
        self._handler_begun = time.monotonic()
        if not self._hold(limit_seconds):
            return False
        self._begun = self._handler_begun
        self.ends_at = self._begun + limit_seconds
        return True

    def hold(self, seconds: float) -> bool:
        """Keep the lease for so many seconds from now; False where that is not possible."""
        return self._hold(seconds)

    def watch(self, timeout: asyncio.Timeout) -> None:
        """Note what stops the run, so that it can be moved."""
        self._timeout = timeout, asyncio.get_running_loop()

    def extend(self, seconds: float) -> None:
        """Let the run go on for at least ``seconds`` from now; never less than it had.

        Raises:
            ValueError: Not positive, or beyond the bound of a run.
            DeadlineNotExtendable: This is a prefork child.
        """
        ends_at = time.monotonic() + seconds
        if not seconds > 0 or ends_at - self._begun > self._bound:
            raise ValueError(
                f"an ack deadline is extended by more than 0 seconds, and a run takes at most "
                f"{self._bound:g} seconds in all (max_lease_duration); {seconds:g} is not possible"
            )
        if ends_at <= self.ends_at:
            return
        if not self._hold(seconds):
            raise DeadlineNotExtendable
        self.ends_at = ends_at
        self._move_timeout(seconds)

    def lose(self) -> None:
        """Stop an async run: another one may have its key. Thread-safe; plain code goes on."""
        self.is_lost = True
        self._move_timeout(0.0)

    def _move_timeout(self, seconds: float) -> None:
        if self._timeout is None:
            return
        timeout, loop = self._timeout
        loop.call_soon_threadsafe(_reschedule, timeout, loop.time() + seconds)


def _reschedule(timeout: asyncio.Timeout, when: float) -> None:
    if not timeout.expired():
        try:
            timeout.reschedule(when)
        except RuntimeError:  # the run has ended meanwhile
            return
