"""Tidying in the background, a little at a time: retention, expiration, deleted messages, room."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from convotic_emulator.engine.broker import Broker
    from convotic_emulator.engine.commits import Commits
    from convotic_emulator.engine.delivery import Dispatcher

__all__ = ["Upkeep"]

logger = logging.getLogger(__name__)

#: Retention, expiration and the tidying of leases; none of them is urgent.
MAINTENANCE_SECONDS = 10.0
#: Between two slices of tidying, so that other work goes on.
SWEEP_SECONDS = 0.005


class Upkeep:
    """The timers of one engine's upkeep; ``delete`` deletes a subscription by its name."""

    def __init__(
        self,
        broker: Broker,
        commits: Commits,
        dispatcher: Dispatcher,
        delete: Callable[[str], None],
    ) -> None:
        self._broker = broker
        self._commits = commits
        self._dispatcher = dispatcher
        self._delete = delete
        self._loop = asyncio.get_running_loop()
        self._maintenance: asyncio.TimerHandle | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._is_stopped = False

    def start(self) -> None:
        """Maintain now, and from time to time."""
        self._maintenance = self._loop.call_later(MAINTENANCE_SECONDS, self.start)
        self.maintain()

    def stop(self) -> None:
        """Stop for good."""
        self._is_stopped = True
        for handle in (self._maintenance, self._sweep_timer):
            if handle is not None:
                handle.cancel()

    def sweep_soon(self) -> None:
        """Sweep until nothing is left to do, in slices."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()  # one at a time: maintenance may come in between
        if self.sweep():
            self._sweep_timer = self._loop.call_later(SWEEP_SECONDS, self.sweep_soon)

    def sweep(self) -> bool:
        """Do some milliseconds of tidying; say whether there may be more of it.

        It is about messages of deleted subscriptions, those past their retention, and free space.
        """
        if self._is_stopped or not self._commits.is_usable:
            return False
        store = self._broker.store
        try:
            more = store.sweep() or self._broker.trim() or store.database.shrink()
        except sqlite3.Error as error:
            self._commits.fail(error)
            return False
        self._commits.commit_soon()
        return more

    def maintain(self) -> None:
        """Drop what is past its retention, and subscriptions that have expired."""
        self.sweep_soon()
        if not self._commits.is_usable:
            return
        try:
            for name in self._broker.maintain(self._dispatcher.has_waiters):
                logger.info("The subscription %s was not used; it has expired.", name)
                self._delete(name)
        except sqlite3.Error as error:
            self._commits.fail(error)
        self._commits.commit_soon()
