"""What fails for a while gets a line in the log when it begins and one when it is over."""

from __future__ import annotations

import threading

__all__ = ["Outage"]


class Outage:
    """Counts what fails until it works again. Thread-safe.

    It logs nothing: :meth:`miss` and :meth:`end` say when there is something to say, so that each
    user has its own words::

        if self._outage.miss():
            logger.warning("Sizes are not known: %s", error)
        ...
        if missed := self._outage.end():
            logger.info("Sizes are known again; %d questions had no answer", missed)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._missed = 0

    @property
    def is_on(self) -> bool:
        """Whether something has failed since the last :meth:`end`."""
        return self._missed > 0

    def miss(self, times: int = 1) -> bool:
        """Count what failed; True if the outage begins with it."""
        with self._lock:
            begins = not self._missed
            self._missed += times
            return begins

    def end(self) -> int:
        """Note that it works; how often it failed, 0 where there was no outage (which is cheap)."""
        if not self._missed:
            return 0
        with self._lock:
            missed, self._missed = self._missed, 0
            return missed
