"""The modules' schedules for Celery's beat, which publishes their messages itself.

A handler's schedule is a call of its task, any other one of :class:`PublishTask`: neither goes
through Celery's queue, so that no worker has to run for a message to be published.
"""

from __future__ import annotations

import logging
import mmap
import struct
import time
from typing import TYPE_CHECKING, Any

from celery.app.task import Task
from celery.beat import PersistentScheduler

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from celery.result import AsyncResult

    from convotic_celery.sdk.schedule import ScheduleDefinition

__all__ = ["PublishTask", "TickingScheduler", "beat_entries", "beat_ticked_at", "log_schedules"]

logger = logging.getLogger(__name__)

#: When the beat in a worker (``-B``) has ticked last. Shared with its process, which is a fork.
_ticked_at = mmap.mmap(-1, 8)
_DOUBLE = struct.Struct("d")


def beat_ticked_at() -> float:
    """Return when beat has ticked last, by the monotonic clock; 0.0: never."""
    at: float = _DOUBLE.unpack_from(_ticked_at)[0]
    return at


class TickingScheduler(PersistentScheduler):
    """Celery's scheduler, which shows its worker that it ticks."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Do what is due; return seconds until the next tick."""
        _DOUBLE.pack_into(_ticked_at, 0, time.monotonic())
        seconds: float = super().tick(*args, **kwargs)
        return seconds


class PublishTask(Task[Any, Any]):
    """Publishes data to a topic, where it is called or run."""

    name = "convotic.publish"
    ignore_result = True

    def run(self, topic: str, data: Any = None, attributes: Mapping[str, str] | None = None) -> str:
        """Publish, and return the message's id once it is confirmed."""
        publisher = self.app.services.sync_pubsub()  # type: ignore[attr-defined]  # ConvoticApp's
        message_id: str = publisher.publish(topic, data=data, attributes=attributes or {})
        return message_id

    def apply_async(  # type: ignore[override]  # as Celery calls it, not as its stubs list it
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> AsyncResult[Any]:
        """Publish now; blocks until it is confirmed."""
        result = self.AsyncResult(self.run(*(args or ()), **(kwargs or {})))
        result.ignored = True
        return result


def beat_entries(schedules: Iterable[ScheduleDefinition]) -> dict[str, dict[str, Any]]:
    """Return what Celery's ``beat_schedule`` is."""
    return {
        each.key: {
            "task": each.queue or PublishTask.name,
            "schedule": each.celerys,
            "args": (each.data,) if each.queue else (each.topic, each.data),
            "kwargs": {"attributes": dict(each.attributes)},
        }
        for each in schedules
    }


def log_schedules(schedules: Sequence[ScheduleDefinition]) -> None:
    """Say, when beat starts, what it will publish."""
    for each in schedules:
        logger.info("Schedule %s: %s -> %s", each.key, each.when, each.queue or each.topic)
    if not schedules:
        logger.warning("No module has a schedule; one is added by @module.schedule(...).")
