"""One line in the log when the store is unavailable, and one when it answers again."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convotic_celery.errors import StoreUnavailable

__all__ = ["StoreOutage"]

logger = logging.getLogger(__name__)


class StoreOutage:
    """What can't be done while the store is unavailable: said once, then counted. Thread-safe.

    Args:
        begun: What happens meanwhile, to follow "While the store is unavailable,".
        counted: What happened meanwhile, with ``%d`` for how often.
    """

    def __init__(self, begun: str, counted: str) -> None:
        self._begun = begun
        self._counted = counted
        self._lock = threading.Lock()
        self._missed = 0

    def miss(self, error: StoreUnavailable, *, times: int = 1) -> None:
        """Count what could not be done; the first time is logged."""
        with self._lock:
            is_first = not self._missed
            self._missed += times
        if is_first:
            logger.warning(
                "While the store is unavailable, %s: %s",
                self._begun,
                error,
                extra={"action": "store_unavailable"},
            )

    def end(self) -> None:
        """Note that the store has answered. Costs nothing but after an outage."""
        if not self._missed:
            return
        with self._lock:
            missed, self._missed = self._missed, 0
        if missed:
            logger.info(
                "The store answers again; meanwhile %s",
                self._counted % missed,
                extra={"action": "store_available"},
            )
