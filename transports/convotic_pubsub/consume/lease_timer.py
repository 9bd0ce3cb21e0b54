"""Calls back when a delivery's lease needs attention (I/O thread)."""

from __future__ import annotations

import asyncio
import heapq
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from convotic_pubsub.consume.delivery import Delivery

__all__ = ["LeaseTimer"]

logger = logging.getLogger(__name__)


class LeaseTimer:
    """Calls back when a delivery's lease needs attention: a wheel of 0.1 s slots and one timer.

    A delivery stands in at most one slot and leaves it when it is settled, so that nothing of a
    finished message is kept. ``before`` is called first: it brings what is known of the deliveries
    up to date.
    """

    _SLOTS_PER_SECOND = 10

    def __init__(
        self,
        clock: Callable[[], float],
        on_due: Callable[[Delivery, float], None],
        before: Callable[[], object] = bool,
    ) -> None:
        self._clock = clock
        self._on_due = on_due
        self._before = before
        self._slots: dict[int, set[Delivery]] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, delivery: Delivery, when: float) -> None:
        """Call back for ``delivery`` at ``when`` (up to 0.1 s later) and at no other time."""
        number = int(when * self._SLOTS_PER_SECOND) + 1
        if delivery.timer_slot == number:
            return
        if delivery.timer_slot:
            self.forget(delivery)
        delivery.timer_slot = number
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = set()
            heapq.heappush(self._order, number)
            if self._order[0] == number:
                self._arm()
        slot.add(delivery)

    def forget(self, delivery: Delivery) -> None:
        """Don't call back for ``delivery`` any more."""
        if delivery.timer_slot:
            slot = self._slots.get(delivery.timer_slot)
            if slot is not None:
                slot.discard(delivery)
            delivery.timer_slot = 0

    def behind_seconds(self, now: float) -> float:
        """Return how long ago the first of the deliveries should have been looked after.

        From any thread.
        """
        order = self._order
        try:
            first = order[0] / self._SLOTS_PER_SECOND
        except IndexError:
            return 0.0
        return max(0.0, now - first)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        in_seconds = self._order[0] / self._SLOTS_PER_SECOND - self._clock()
        self._timer = loop.call_later(max(0.0, in_seconds), self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._before()
        now = self._clock()
        while self._order and self._order[0] <= now * self._SLOTS_PER_SECOND:
            number = heapq.heappop(self._order)
            for delivery in self._slots.pop(number):
                if delivery.timer_slot != number:  # settled by what another's end led to
                    continue
                delivery.timer_slot = 0
                try:
                    self._on_due(delivery, now)
                except Exception:  # an error about one lease must not end the others
                    logger.exception(
                        "A lease can't be looked after", extra={"action": "lease_failed"}
                    )
        if self._order:
            self._arm()
