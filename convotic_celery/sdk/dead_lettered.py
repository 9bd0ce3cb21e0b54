"""The argument of the hook ``on_dead_letter``: :class:`DeadLettered`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

__all__ = ["DeadLettered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettered:
    """A message that is about to go to the dead-letter topic, and why."""

    #: The same as ``message.id``; the dead letter itself has another id.
    message_id: str
    topic: str
    #: As published, since it may not fit the handler's payload type. Left out of ``repr``.
    data: bytes = field(repr=False)
    attributes: Mapping[str, str]
    published_at: datetime
    #: Number of runs; for ``worker-lost``, of deliveries.
    attempts: int
    #: ``convotic-dead-letter-reason``: ``max-retries-exceeded``, ``invalid``, ``rejected``,
    #: ``ack-deadline-exceeded`` or ``worker-lost``.
    reason: str
    #: What the last run raised; for ``worker-lost``, an error that says so.
    error: Exception
