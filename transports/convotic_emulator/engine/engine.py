"""The broker in an event loop: its parts, the timer, and what several of them do together."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Protocol

from convotic_emulator.engine.broker import Broker
from convotic_emulator.engine.clock import SECOND_US, Clock, ManualClock
from convotic_emulator.engine.commits import Commits
from convotic_emulator.engine.delivery import Dispatcher
from convotic_emulator.engine.seeks import Seeks
from convotic_emulator.engine.upkeep import Upkeep
from convotic_emulator.errors import (
    DETACHED,
    FailedPrecondition,
    NotFound,
    PubsubError,
    Unavailable,
)

if TYPE_CHECKING:
    from convotic_emulator.engine.lease import Timed
    from convotic_emulator.engine.registry import Registry, Subscription
    from convotic_emulator.storage.store import Store

__all__ = ["Engine", "Pushing"]


class Pushing(Protocol):
    """Delivery to endpoints, which is a service's matter; the engine says when."""

    def refresh(self, subscription: Subscription) -> None:
        """Start, stop or restart pushing, as the subscription says now."""
        ...

    def stop(self, subscription: Subscription) -> None:
        """Stop pushing the messages of one subscription."""
        ...

    def stop_all(self) -> None:
        """Stop pushing."""
        ...


class Engine:
    """A broker in an event loop. Create, start and use it in that loop's thread."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self._loop = asyncio.get_running_loop()
        self.commits = Commits(store, self)
        self.dispatcher = Dispatcher(clock, self.commits)
        self.broker = Broker(store, clock, self.dispatcher.wake)
        self.seeks = Seeks(self.broker, self.commits)
        self.upkeep = Upkeep(self.broker, self.commits, self.dispatcher, self.delete_subscription)
        #: Names of hosts beside this one that subscriptions may push to, in lower case.
        self.push_hosts: frozenset[str] = frozenset()
        #: Set before :meth:`start`; without it nothing is pushed.
        self.pushing: Pushing | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_us = 0
        self._is_stopped = False

    @property
    def registry(self) -> Registry:
        """What exists. Another one after trouble with the file: look it up each time."""
        return self.broker.registry

    def start(self) -> None:
        """Start the timers."""
        if isinstance(self.clock, ManualClock):
            self.clock.on_advance.append(self._on_advance)
        self._go_on()
        self.upkeep.start()
        self.commits.committed()

    def stop(self) -> None:
        """Refuse all waiting consumers, commit, and close the store. Idempotent."""
        if self._is_stopped:
            return
        self._is_stopped = True
        if isinstance(self.clock, ManualClock):
            self.clock.on_advance.remove(self._on_advance)
        if self._timer is not None:
            self._timer.cancel()
        self.upkeep.stop()
        self.seeks.stop()
        self.refuse_waiters()
        if self.commits.stop():
            self.store.close()
        else:
            self.store.abandon()

    def refuse_waiters(self) -> None:
        """Refuse all waiting consumers: the server is stopping."""
        self._drop_waiters(Unavailable("The server is shutting down."))

    def check_subscription(self, subscription: Subscription) -> None:
        """Raise why a subscription that was looked up before gives nothing any more."""
        self.commits.check_usable()
        if subscription.is_deleted:
            raise NotFound.of(subscription.row.name)
        if subscription.is_gone:
            raise FailedPrecondition(DETACHED)
        if self.registry.subscriptions.get(subscription.row.name) is not subscription:
            raise Unavailable("The server has read its data file again.")

    def refresh_pushing(self, subscription: Subscription) -> None:
        """Push, or not, as the subscription says now."""
        if self.pushing is not None:
            self.pushing.refresh(subscription)

    def delete_subscription(self, name: str) -> None:
        """Delete a subscription; its streams and pulls end with NotFound."""
        subscription = self.registry.delete_subscription(name)
        self._refuse_consumers(subscription, NotFound.of(name))

    def detach_subscription(self, name: str) -> None:
        """Detach a subscription from its topic; its streams and pulls end."""
        subscription = self.registry.subscription(name)
        self.registry.detach(subscription)
        self._refuse_consumers(subscription, FailedPrecondition(DETACHED))

    def wake_at(self, when_us: int, timed: Timed) -> None:
        """Have ``timed.fire`` called at a time by the clock."""
        self.broker.timers.push(when_us, timed)
        self._set_timer()

    def tick(self) -> None:
        """Do what is due by the clock."""
        if self._is_stopped or not self.commits.is_usable:
            return
        try:
            self.broker.fire_due()
        except sqlite3.Error as error:
            self.commits.fail(error)
            return
        self.commits.commit_soon()
        self._set_timer()

    # What the commits ask for

    def on_commit(self) -> None:
        """Wake at the next lapse."""
        self._set_timer()

    def on_trouble(self, error: Unavailable) -> None:
        """Refuse all waiting consumers; seeks continue when the file has been read again."""
        self.seeks.stop()
        self._drop_waiters(error)

    def reload(self) -> None:
        """Read everything from the file."""
        self.broker.reload()

    def on_recovery(self) -> None:
        """Serve again."""
        self.dispatcher.reopen()
        self._go_on()

    def _go_on(self) -> None:
        self._set_timer()
        for subscription in self.registry.subscriptions.values():
            self.refresh_pushing(subscription)
        self.seeks.resume()

    def _drop_waiters(self, error: Unavailable) -> None:
        if self.pushing is not None:
            self.pushing.stop_all()
        self.dispatcher.drop_all(error)

    def _refuse_consumers(self, subscription: Subscription, error: PubsubError) -> None:
        if self.pushing is not None:
            self.pushing.stop(subscription)
        self.dispatcher.drop(subscription.state, error)
        self.upkeep.sweep_soon()

    def _set_timer(self) -> None:
        """Wake at the next lapse."""
        next_us = self.broker.timers.next_us()
        if next_us is None or self._is_stopped or not self.commits.is_usable:
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
