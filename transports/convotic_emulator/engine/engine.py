"""The event loop's side of the broker: shared commits, the timer, and what happens on failure.

All requests that were handled since the last commit share the next one, which runs at the end of
the event loop's round: no answer leaves before what it confirms is committed.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING

from convotic_emulator.engine.broker import Broker
from convotic_emulator.engine.clock import SECOND_US, Clock, ManualClock
from convotic_emulator.engine.delivery import Dispatcher
from convotic_emulator.engine.seeks import Replays
from convotic_emulator.errors import (
    DETACHED,
    FailedPrecondition,
    NotFound,
    PubsubError,
    ResourceExhausted,
    Unavailable,
)
from convotic_emulator.services.push import Pushers
from convotic_emulator.storage.database import RESERVED_BYTES

if TYPE_CHECKING:
    from convotic_emulator.engine.lease import Timed
    from convotic_emulator.engine.registry import Registry, Subscription
    from convotic_emulator.storage.store import Store

__all__ = ["Engine"]

logger = logging.getLogger(__name__)

#: Retention, expiration and the tidying of leases; none of them is urgent.
MAINTENANCE_SECONDS = 10.0
#: A file that could not be written is tried again so much later.
RETRY_SECONDS = 1.0
#: SQLite's errors that may pass: no room, the disk's trouble, no memory, somebody else's lock.
_PASSING = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_BUSY}
)
#: Between two slices of tidying, so that other work goes on.
SWEEP_SECONDS = 0.005


class Engine:
    """A broker in an event loop. Create, start and use it in that loop's thread."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self._loop = asyncio.get_running_loop()
        self.dispatcher = Dispatcher(clock, self._after_dispatch, self.fail)
        self.broker = Broker(store, clock, self.dispatcher.wake)
        self.pushers = Pushers(self)
        self.replays = Replays(self)
        #: Set to the error when the store has failed for good: the server must stop.
        self.failed: asyncio.Future[None] = self._loop.create_future()
        #: While the file can't be written: what everybody is answered.
        self._trouble: Unavailable | None = None
        self._commit: asyncio.Future[None] | None = None
        self._nothing: asyncio.Future[None] = self._loop.create_future()
        self._nothing.set_result(None)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_us = 0
        self._maintenance: asyncio.TimerHandle | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._stopped = False

    @property
    def registry(self) -> Registry:
        """What exists. Another one after trouble with the file: look it up each time."""
        return self.broker.registry

    def start(self) -> None:
        """Start the timers."""
        if isinstance(self.clock, ManualClock):
            self.clock.on_advance.append(self._on_advance)
        self._go_on()
        self._maintain()
        self.committed()

    def _go_on(self) -> None:
        self._set_timer()
        for subscription in self.registry.subscriptions.values():
            self.pushers.refresh(subscription)
        self.replays.resume()

    def check_usable(self) -> None:
        """Raise Unavailable while the file can't be written: nothing may change in memory."""
        if self._trouble is not None:
            raise self._trouble

    def check_room(self) -> None:
        """Raise ResourceExhausted when nothing may be added, so that the rest can go on."""
        if not self.store.has_room():
            raise ResourceExhausted(
                f"The disk has less than {RESERVED_BYTES >> 20} MiB free; nothing was published."
            )

    def check_subscription(self, subscription: Subscription) -> None:
        """Raise why a subscription that was looked up before gives nothing any more."""
        self.check_usable()
        if subscription.is_deleted:
            raise NotFound.of(subscription.row.name)
        if subscription.is_gone:
            raise FailedPrecondition(DETACHED)
        if self.registry.subscriptions.get(subscription.row.name) is not subscription:
            raise Unavailable("The server has read its data file again.")

    def stop(self) -> None:
        """Refuse all who wait, commit, and close the store. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        if isinstance(self.clock, ManualClock):
            self.clock.on_advance.remove(self._on_advance)
        for handle in (self._timer, self._maintenance):
            if handle is not None:
                handle.cancel()
        self.replays.stop()
        self.refuse_waiters()
        self._flush()
        if not self.failed.done():
            self.failed.cancel()
            self.store.close()

    def refuse_waiters(self) -> None:
        """Send away all who wait for messages: the server is stopping."""
        self.pushers.stop_all()
        self.dispatcher.drop_all(Unavailable("The server is shutting down."))

    def committed(self) -> asyncio.Future[None]:
        """Return a future that is done when all that was written until now is committed."""
        if self._commit is None and not self.store.has_uncommitted and self._is_usable():
            return self._nothing  # nobody waits a round of the loop for nothing
        if self._commit is None:
            self._commit = self._loop.create_future()
            self._loop.call_soon(self._flush)
        return self._commit

    def delete_subscription(self, name: str) -> None:
        """Delete a subscription; its streams and pulls end with NotFound."""
        subscription = self.registry.delete_subscription(name)
        self._send_away(subscription, NotFound.of(name))
        self._sweep()

    def detach_subscription(self, name: str) -> None:
        """Detach a subscription from its topic; its streams and pulls end."""
        subscription = self.registry.subscription(name)
        self.registry.detach(subscription)
        self._send_away(subscription, FailedPrecondition(DETACHED))
        self._sweep()

    def fail(self, error: sqlite3.Error) -> None:
        """Serve nobody: memory may be ahead of the file, which holds all that was confirmed.

        What may pass, like a full disk, is tried again; else the server must stop.
        """
        if not self._is_usable():
            return
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING:
            logger.error("The data file can't be written (%s); trying again.", error)
            self._trouble = Unavailable(f"The data file can't be written: {error}.")
            self.replays.stop()
            self.pushers.stop_all()
            self.dispatcher.drop_all(self._trouble)
            try:
                self.store.rollback()
            except sqlite3.Error as worse:
                error = worse
            else:
                self._loop.call_later(RETRY_SECONDS, self._try_again)
                return
        self._fail_for_good(error)

    def _fail_for_good(self, error: sqlite3.Error) -> None:
        logger.critical("The data file can't be used any more; stopping.", exc_info=error)
        self.failed.set_exception(error)
        self.failed.exception()  # seen: nobody may be waiting for it in a test
        self.refuse_waiters()

    def _try_again(self) -> None:
        """Read everything from the file, as after a kill, and serve; later, if it still fails."""
        if self._stopped:
            return
        try:
            broker = Broker(self.store, self.clock, self.dispatcher.wake)
            self.store.commit()
        except sqlite3.Error as error:
            try:
                self.store.rollback()
            except sqlite3.Error:
                self._fail_for_good(error)
            else:
                self._loop.call_later(RETRY_SECONDS, self._try_again)
            return
        broker.take_delay_us = self.broker.take_delay_us
        self.broker = broker
        self._trouble = None
        self.dispatcher.reopen()
        logger.warning("Serving again.")
        self._go_on()

    def _is_usable(self) -> bool:
        return self._trouble is None and not self.failed.done()

    def _send_away(self, subscription: Subscription, error: PubsubError) -> None:
        self.pushers.stop(subscription)
        self.dispatcher.drop(subscription.state, error)

    def _flush(self) -> None:
        commit, self._commit = self._commit, None
        try:
            if not self._is_usable():
                raise sqlite3.OperationalError("it has failed before")
            self.store.commit()
        except sqlite3.Error as error:
            self.fail(error)
            if commit is not None and not commit.done():
                commit.set_exception(Unavailable(f"The data file can't be written: {error}."))
                commit.exception()  # seen: timers commit without waiting
            return
        if commit is not None and not commit.done():
            commit.set_result(None)
        self._set_timer()

    def _after_dispatch(self) -> None:
        if self.store.has_uncommitted:
            self.committed()

    def _set_timer(self) -> None:
        """Wake at the next lapse."""
        next_us = self.broker.timers.next_us()
        if next_us is None or self._stopped or not self._is_usable():
            return
        if self._timer is not None:
            if self._timer_us <= next_us:
                return
            self._timer.cancel()
        delay = max(0.0, (next_us - self.clock.now_us()) / SECOND_US)
        self._timer_us = next_us
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.tick()

    def _on_advance(self) -> None:
        self._loop.call_soon_threadsafe(self._on_moved)

    def _on_moved(self) -> None:
        if self._timer is not None:
            self._timer.cancel()  # it would fire too late
            self._timer = None
        self.tick()

    def wake_at(self, when_us: int, timed: Timed) -> None:
        """Have ``timed.fire`` called at a time by the clock."""
        self.broker.timers.push(when_us, timed)
        self._set_timer()

    def tick(self) -> None:
        """Do what is due by the clock."""
        if self._stopped or not self._is_usable():
            return
        try:
            self.broker.fire_due()
        except sqlite3.Error as error:
            self.fail(error)
            return
        if self.store.has_uncommitted:
            self.committed()
        self._set_timer()

    def _sweep(self) -> None:
        """Tidy up, a little at a time."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()  # one at a time: maintenance may come in between
        if self.sweep():
            self._sweep_timer = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def sweep(self) -> bool:
        """Do some milliseconds of tidying; say whether there may be more of it.

        It is about messages of deleted subscriptions, those past their retention, and free space.
        """
        if self._stopped or not self._is_usable():
            return False
        try:
            more = self.store.sweep() or self.broker.trim() or self.store.shrink()
        except sqlite3.Error as error:
            self.fail(error)
            return False
        if self.store.has_uncommitted:
            self.committed()
        return more

    def _maintain(self) -> None:
        self._maintenance = self._loop.call_later(MAINTENANCE_SECONDS, self._maintain)
        self.maintain()

    def maintain(self) -> None:
        """Drop what is past its retention, and subscriptions that have expired."""
        self._sweep()
        if not self._is_usable():
            return
        try:
            for name in self.broker.maintain(self.dispatcher.has_waiters):
                logger.info("The subscription %s was not used; it has expired.", name)
                self.delete_subscription(name)
        except sqlite3.Error as error:
            self.fail(error)
        if self.store.has_uncommitted:
            self.committed()
