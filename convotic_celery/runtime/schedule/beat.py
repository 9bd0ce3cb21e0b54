"""The modules' schedules for Celery's beat, which publishes their messages itself.

A handler's schedule is a call of its task, any other one of :class:`PublishTask`: neither goes
through Celery's queue, so that no worker has to run for a message to be published.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.app.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from celery.result import AsyncResult

    from convotic_celery.sdk.schedule import ScheduleDefinition

__all__ = ["PublishTask", "beat_entries", "log_schedules"]

logger = logging.getLogger(__name__)


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
