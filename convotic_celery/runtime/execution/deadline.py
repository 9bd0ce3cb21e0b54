"""How long a run may still go on: :class:`RunDeadline`, behind ``ctx.extend_ack_deadline``.

A run's time is counted here, in the process that runs it; the lease is kept by the worker, which is
the same process in every pool but prefork.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias

from celery.worker import state

from convotic_celery.errors import DeadlineNotExtendable
from convotic_celery.runtime.execution.run_timeout import RunTimeout

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


class RunDeadline(RunTimeout):
    """The clock of one run, and what stops its coroutine at the end. Made for each run.

    Used by that run, and by what it calls.
    """

    __slots__ = (
        "_begun",
        "_bound",
        "_handler_begun",
        "_hold",
        "_limit",
        "_stopper",
        "ends_at",
        "fencing_token",
        "is_lost",
    )

    def __init__(
        self, limit_seconds: float, hold: HoldLease, *, bound_seconds: float | None = None
    ) -> None:
        self._hold = hold
        self._limit = limit_seconds
        self._bound = bound_seconds or MAX_RUN_SECONDS
        self._task, self.is_due = None, False
        #: Another one, which stops this run too; None: it does so itself.
        self._stopper: RunDeadline | None = None
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

    def start(self) -> None:
        """Stop the running task at the deadline, until :meth:`end`."""
        self.begin(self.ends_at, self._limit)
        if self.is_lost:
            self.move(0.0)

    def follow(self, stopper: RunDeadline | None) -> None:
        """Note what stops the run in its place, also if this is lost; None: it has ended."""
        self._stopper = stopper
        if self.is_lost and stopper is not None:
            stopper.lose()

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
        (self._stopper or self).move(seconds)

    def lose(self) -> None:
        """Stop an async run: another one may have its key. Thread-safe; plain code goes on."""
        self.is_lost = True
        stopper = self._stopper or self
        stopper.is_lost = True
        stopper.move(0.0)
