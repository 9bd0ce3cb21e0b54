"""What a handler raises to choose the outcome of its message; see ``docs/modules.md``.

::

    Outcome
    ├── Retry         run again after a delay; counts as a failure
    ├── DeadLetter    publish to the dead-letter topic at once
    └── Drop          acknowledge and count, don't run again

Not :class:`~convotic_celery.errors.ConvoticError`: these are decisions, so ``except ConvoticError``
in a handler does not swallow them.
"""

from __future__ import annotations

from datetime import timedelta

__all__ = ["DeadLetter", "Drop", "Outcome", "Retry"]


class Outcome(Exception):
    """Base of the outcomes a handler can raise."""


class Retry(Outcome):
    """Deliver the message again, after ``delay`` instead of the handler's own.

    Counts as a failure: after the last retry the message goes to the dead-letter topic.

    Args:
        delay: Seconds from now, or a timedelta; at least 1 s. Pub/Sub allows 600 s at a time, so
            the worker renews longer delays while it lives. None: as the options say.
        message: Shown in log and result.

    """

    def __init__(self, delay: float | timedelta | None = None, message: str = "") -> None:
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
        if isinstance(seconds, str):
            raise TypeError(f"Retry's first argument is the delay; use Retry(message={delay!r}).")
        if seconds is not None and not 0 <= seconds < float("inf"):
            raise ValueError(
                f"Retry's delay must be a non-negative number of seconds, not {delay!r}."
            )
        super().__init__(seconds, message)
        self.delay = seconds
        self.message = message

    def __str__(self) -> str:
        when = "" if self.delay is None else f" in {self.delay:g} s"
        return f"retry{when}{': ' if self.message else ''}{self.message}"


class DeadLetter(Outcome):
    """Send the message to the dead-letter topic, with ``reason`` as its error message."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or "dead-lettered by the handler"


class Drop(Outcome):
    """Acknowledge the message without success; ``reason`` is shown in log and result."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or "dropped by the handler"
