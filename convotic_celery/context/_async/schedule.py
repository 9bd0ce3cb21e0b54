"""Delayed messages in the store: kept, cancelled, and taken by those who publish them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convotic_celery.context import records, scheduled, scheduled_listing

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from convotic_celery.context.database import AsyncDatabase
    from convotic_celery.context.keys import Keys
    from convotic_celery.context.models import Page
    from convotic_celery.context.scheduled import Delay, DueMessages, ScheduledMessage
    from convotic_celery.context.scheduled_listing import DelayedMessage
    from convotic_pubsub.outgoing import OutgoingMessage

__all__ = ["AsyncSchedule"]


class AsyncSchedule:
    """The delayed messages in the store.

    Workers take them with :meth:`take_due` and publish them. All methods raise StoreUnavailable
    while the store does not answer.
    """

    def __init__(self, database: AsyncDatabase, keys: Keys, changed: threading.Event) -> None:
        self._database = database
        self._keys = keys
        self._changed = changed
        #: None: the store's clock. Tests pass one that they move.
        self.now: Callable[[], datetime] | None = None

    async def add(self, messages: Sequence[OutgoingMessage], delay: Delay) -> list[str]:
        """Store the messages for ``delay`` and return their schedule ids; all or none.

        Raises InvalidDelay, and PublishRefused if they are too many for one call.
        """
        milliseconds = scheduled.delay_milliseconds(delay)
        scheduled.check_amount(messages)
        ids = [f"{scheduled.ID_PREFIX}{records.new_id()}" for _ in messages]
        encoded = [
            text
            for schedule_id, message in zip(ids, messages, strict=True)
            for text in scheduled.encode_scheduled(schedule_id, message)
        ]
        await self._database.run(
            scheduled.SCHEDULE,
            [self._keys.schedule],
            self._clock(),
            str(milliseconds),
            self._keys.scheduled(""),
            *encoded,
        )
        self._changed.set()
        return ids

    async def cancel(self, schedule_id: str) -> bool:
        """Cancel a message; True if it was still waiting. Raises ValueError for an invalid id."""
        done = await self._database.run(
            scheduled.CANCEL,
            [self._keys.schedule, self._keys.scheduled(scheduled.check_schedule_id(schedule_id))],
            schedule_id,
            records.new_token(),
            str(scheduled.CANCELLED_SECONDS),
        )
        return bool(done)

    async def take_due(
        self, token: str, *, limit: int, lock_seconds: float = scheduled.LOCK_SECONDS
    ) -> DueMessages:
        """Take up to ``limit`` due messages; no other publisher gets them for ``lock_seconds``.

        ``token`` names the delayed publisher, which must :meth:`settle`, :meth:`postpone` or
        :meth:`renew` them.
        """
        answer = await self._database.run(
            scheduled.TAKE_DUE,
            [self._keys.schedule, self._keys.schedule_watch],
            self._clock(),
            self._keys.scheduled(""),
            token,
            str(limit),
            str(scheduled.MAX_TAKEN_BYTES),
            _milliseconds(lock_seconds),
            _milliseconds(scheduled.IDLE_SECONDS),
        )
        return scheduled.parse_due(answer)

    async def renew(
        self,
        token: str,
        schedule_ids: Iterable[str],
        *,
        lock_seconds: float = scheduled.LOCK_SECONDS,
    ) -> None:
        """Extend the lock of the messages that this publisher still holds."""
        await self._database.run(
            scheduled.RENEW,
            [self._keys.schedule],
            self._clock(),
            self._keys.scheduled(""),
            token,
            _milliseconds(lock_seconds),
            *schedule_ids,
        )

    async def settle(self, schedule_ids: Iterable[str]) -> None:
        """Delete published messages; idempotent."""
        await self._database.run(
            scheduled.SETTLE, [self._keys.schedule], self._keys.scheduled(""), *schedule_ids
        )

    async def postpone(
        self, token: str, message: ScheduledMessage, delay_seconds: float, *, is_certain: bool
    ) -> None:
        """Try a message again later; ``is_certain``: it was certainly not published this time."""
        await self._database.run(
            scheduled.POSTPONE,
            [self._keys.schedule, self._keys.scheduled(message.id)],
            self._clock(),
            message.id,
            token,
            str(message.failures + 1),
            _milliseconds(delay_seconds),
            "1" if is_certain else "",
        )

    async def next_due(self) -> datetime | None:
        """Return when the next message is due, timezone-aware; None if none waits."""
        found = await self._database.run(scheduled.NEXT_DUE, [self._keys.schedule])
        return scheduled.parse_next_due(found)

    async def list(
        self, *, limit: int = 100, cursor: str | None = None
    ) -> tuple[int, Page[DelayedMessage]]:
        """Return how many messages wait, and a page of them, the next one due first.

        Their data is cut after 2,000 bytes; :meth:`get` returns all of it. ``limit`` is 1 to 1,000.
        Raises InvalidField.
        """
        found = await self._database.run(
            scheduled_listing.LIST_SCHEDULED,
            [self._keys.schedule],
            self._keys.scheduled(""),
            *scheduled_listing.listing_arguments(limit, cursor),
        )
        return scheduled_listing.parse_listing(found, limit)

    async def get(self, schedule_id: str) -> DelayedMessage | None:
        """Return a message that waits, None if it does not; raises ValueError for an invalid id."""
        key = self._keys.scheduled(scheduled.check_schedule_id(schedule_id))
        found = await self._database.run(
            scheduled_listing.READ_SCHEDULED, [self._keys.schedule, key], schedule_id
        )
        return scheduled_listing.parse_delayed(found)

    def _clock(self) -> str:
        return "" if self.now is None else _milliseconds(self.now().timestamp())


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"
