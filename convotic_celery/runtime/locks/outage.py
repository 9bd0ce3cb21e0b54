"""One line in the log when the store is unavailable, and one when it answers again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from convotic_pubsub.outage import Outage

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
        self._outage = Outage()

    def miss(self, error: StoreUnavailable, *, times: int = 1) -> None:
        """Count what could not be done; the first time is logged."""
        if self._outage.miss(times):
            logger.warning(
                "While the store is unavailable, %s: %s",
                self._begun,
                error,
                extra={"action": "store_unavailable"},
            )

    def end(self) -> None:
        """Note that the store has answered. Costs nothing but after an outage."""
        if missed := self._outage.end():
            logger.info(
                "The store answers again; meanwhile %s",
                self._counted % missed,
                extra={"action": "store_available"},
            )
