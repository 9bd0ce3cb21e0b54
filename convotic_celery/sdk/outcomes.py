"""What a handler raises to choose the outcome of its message; see ``docs/modules.md``.

::

    Outcome
    ├── Retry         again after a delay; counts as an attempt
    ├── DeadLetter    to the dead-letter topic at once
    └── Drop          acknowledged and counted, not run again

Not :class:`~convotic_celery.errors.ConvoticError`: these are decisions, so ``except ConvoticError``
in a handler does not swallow them.
"""

from __future__ import annotations

from datetime import timedelta

__all__ = ["DeadLetter", "Drop", "Outcome", "Retry"]


class Outcome(Exception):
    """Base of the outcomes a handler can raise."""


class Retry(Outcome):
    """Have the message delivered again, after ``delay`` instead of the handler's own.

    Counts as an attempt: after the last one the message goes to the dead-letter topic.

    Args:
        delay: Seconds from now, or a timedelta; at least 1 s is kept. Pub/Sub grants 600 s at a
            time: longer waits hold as long as the worker lives. None: as the options say.
        message: Said in log and result.

    """

    def __init__(self, delay: float | timedelta | None = None, message: str = "") -> None:
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
        if isinstance(seconds, str):
            raise TypeError(f"Retry's first argument is the delay; say Retry(message={delay!r}).")
        if seconds is not None and not 0 <= seconds < float("inf"):
            raise ValueError(
                f"Retry's delay is in seconds from now and not negative, not {delay!r}."
            )
        super().__init__(seconds, message)
        self.delay = seconds
        self.message = message

    def __str__(self) -> str:
        when = "" if self.delay is None else f" in {self.delay:g} s"
        return f"retry{when}{': ' if self.message else ''}{self.message}"


class DeadLetter(Outcome):
    """Give the message up: it goes to the dead-letter topic with ``reason`` as error message."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or "dead-lettered by the handler"


class Drop(Outcome):
    """Acknowledge the message without having done its work; ``reason`` shows in log and result."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or "dropped by the handler"
