"""Seeks and snapshots of large backlogs, in slices: other requests run in between.

A client that stops waiting does not end them. A subscription has one at a time.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from convotic_emulator.errors import DETACHED, FailedPrecondition, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from convotic_emulator.engine.broker import Broker
    from convotic_emulator.engine.commits import Commits
    from convotic_emulator.engine.registry import Snapshot, Subscription, Topic
    from convotic_emulator.engine.rules import Proto
    from convotic_emulator.storage.seeks import Seek

__all__ = ["Seeks"]

#: Work so long, then commit and let others have as long.
SLICE_SECONDS = 0.005


class Seeks:
    """What is in progress. Belongs to the event loop of its engine."""

    def __init__(self, broker: Broker, commits: Commits) -> None:
        self._broker = broker
        self._commits = commits
        self._tasks: set[asyncio.Task[None]] = set()
        self._locks: WeakKeyDictionary[Subscription, asyncio.Lock] = WeakKeyDictionary()

    def resume(self) -> None:
        """Go on with the seeks of an earlier run; their subscriptions are held until then."""
        for seek in self._broker.store.seeks.unfinished():
            subscription = self._broker.registry.by_number[seek.number]
            self._start(self._resume(subscription, seek))

    def stop(self) -> None:
        """Stop; seeks go on when the data file is opened again."""
        for task in self._tasks:
            task.cancel()

    async def seek(
        self, subscription: Subscription, *, time_us: int | None, source: Topic | Snapshot | None
    ) -> None:
        """Seek to a time or to a snapshot; return when it is done. NotFound if one is deleted."""
        await self._done(self._seek(subscription, time_us, source))

    async def create_snapshot(self, subscription: Subscription, proto: Proto) -> None:
        """Create a snapshot with all that the subscription has; return when it is complete."""
        await self._done(self._copy(subscription, proto))

    async def _seek(
        self, subscription: Subscription, time_us: int | None, source: Topic | Snapshot | None
    ) -> None:
        async with self._lock(subscription):
            if time_us is None and source is not None:
                self._broker.registry.snapshot(source.row.name)  # deleted meanwhile?
            _check_exists(subscription)
            seek = self._broker.begin_seek(subscription, time_us=time_us, source=source)
            await self._in_slices(self._broker.seek(seek))
            _check_exists(subscription)

    async def _resume(self, subscription: Subscription, seek: Seek) -> None:
        async with self._lock(subscription):
            await self._in_slices(self._broker.seek(seek))

    async def _copy(self, subscription: Subscription, proto: Proto) -> None:
        async with self._lock(subscription):
            _check_exists(subscription)
            self._broker.registry.create("snapshot", proto)
            snapshot = self._broker.registry.snapshot(proto.name)
            await self._in_slices(self._broker.copy(subscription, snapshot))
            if not snapshot.is_complete:
                raise NotFound.of(proto.name)

    async def _in_slices(self, work: Iterator[None]) -> None:
        """Do all of it, and commit."""
        since = time.monotonic()
        try:
            for _ in work:
                if time.monotonic() - since >= SLICE_SECONDS:
                    await self._commits.committed()
                    await asyncio.sleep(SLICE_SECONDS)
                    since = time.monotonic()
        except sqlite3.Error as error:
            self._commits.fail(error)
            raise Unavailable("The data file can't be used.") from error
        await self._commits.committed()

    def _lock(self, subscription: Subscription) -> asyncio.Lock:
        return self._locks.setdefault(subscription, asyncio.Lock())

    async def _done(self, work: Coroutine[object, object, None]) -> None:
        """Start work and wait for it; Unavailable if it was left off."""
        task = self._start(work)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise Unavailable("The server has left off; a seek goes on later.") from None
            raise

    def _start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: the client may have gone


def _check_exists(subscription: Subscription) -> None:
    if subscription.is_deleted:
        raise NotFound.of(subscription.row.name)
    if subscription.is_gone:
        raise FailedPrecondition(DETACHED)
