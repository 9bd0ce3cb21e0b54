"""One registered schedule: :class:`ScheduleDefinition`, what Celery's beat publishes and when."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from convotic_celery.context.publishing import build_message
from convotic_celery.errors import ModuleError, PublishRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery.schedules import BaseSchedule

__all__ = ["ScheduleDefinition", "define_schedule"]

_RULE = (
    'a cron expression of five fields, as in "0 3 * * *" (minute, hour, day, month, weekday), or '
    "every=, a timedelta or seconds, at least 1"
)


@dataclass(frozen=True)
class ScheduleDefinition:
    """A schedule of a module, with everything checked. Made by :func:`define_schedule`."""

    module: str
    #: Unique in the module.
    name: str
    #: Where its messages are published; None: they are for one handler.
    topic: str | None
    #: The handler's queue; None: they are for all subscribers of the topic.
    queue: str | None
    #: ``0 3 * * *``; UTC. None: see ``every_seconds``.
    cron: str | None
    every_seconds: float | None
    #: What each message has: JSON.
    data: Any = None
    #: ``schedule`` among them, unless another was given: this schedule's key.
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its name in beat: ``shop.nightly``."""
        return f"{self.module}.{self.name}"

    @property
    def when(self) -> str:
        """In words, for people."""
        return f"{self.cron} (UTC)" if self.cron else f"every {self.every_seconds:g} s"

    @property
    def celerys(self) -> BaseSchedule | timedelta:
        """As Celery's beat takes it."""
        from celery.schedules import crontab  # noqa: PLC0415 - listing handlers needs no Celery

        if self.cron is None:
            return timedelta(seconds=self.every_seconds or 0)
        made: BaseSchedule = crontab.from_string(self.cron)
        return made


def define_schedule(
    *,
    module: str,
    name: str,
    cron: str | None,
    every: timedelta | float | None,
    topic: str | None = None,
    queue: str | None = None,
    data: Any = None,
    attributes: Mapping[str, str] | None = None,
) -> ScheduleDefinition:
    """Return the checked definition; raises a ModuleError that names the rule."""
    from celery.schedules import ParseException  # noqa: PLC0415 - as above

    seconds = every.total_seconds() if isinstance(every, timedelta) else every
    where = f"module {module!r}, schedule {name!r}"
    if (cron is None) == (seconds is None) or isinstance(seconds, bool):
        raise ModuleError(f"{where}: it needs {_RULE}.")
    if seconds is not None and (not isinstance(seconds, int | float) or not seconds >= 1):
        raise ModuleError(f"{where}: every={every!r} is invalid; it needs {_RULE}.")
    given = {"schedule": f"{module}.{name}"} | dict(attributes or {})
    found = ScheduleDefinition(module, name, topic, queue, cron, seconds, data, given)
    try:
        _ = found.celerys
        build_message(
            topic or "schedule", None, data=data, attributes=given, ordering_key="", trace={}
        )
    except PublishRefused as error:
        raise ModuleError(f"{where}: {error}") from None
    except (ValueError, ParseException) as error:
        raise ModuleError(f"{where}: {cron!r} is invalid ({error}); it needs {_RULE}.") from None
    return found
