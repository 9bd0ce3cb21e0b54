"""Who needs which right, for what: the table of docs/google-cloud.md as values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from convotic_celery.topology.values import PUBLISHER, SUBSCRIBER, VIEWER

if TYPE_CHECKING:
    from convotic_celery.topology.values import Desired

__all__ = ["CONTROL_PERMISSIONS", "Right", "worker_rights"]

#: On the project: what a process needs for its own control subscription, on ``celery.control`` and
#: ``celery.events``. There is no predefined role with no more than that.
CONTROL_PERMISSIONS: Final = frozenset(
    {
        "pubsub.subscriptions.consume",
        "pubsub.subscriptions.create",
        "pubsub.subscriptions.delete",
        "pubsub.subscriptions.get",
        "pubsub.topics.attachSubscription",
        "pubsub.topics.get",  # only to find the subscriptions that killed processes have left
    }
)

_CONTROL_TOPICS: Final = ("celery.control", "celery.events")


@dataclass(frozen=True, slots=True)
class Right:
    """A permission that a worker needs on one topic or subscription."""

    resource: str
    permission: str
    #: The predefined role with the fewest other permissions.
    role: str
    why: str
    #: Whether messages wait, or the worker does not start, without it.
    is_vital: bool = True


def worker_rights(
    desired: Desired, provision: Literal["create", "verify", "off"]
) -> Iterable[Right]:
    """Yield what a worker needs on the resources of its queues.

    Args:
        desired: its topology.
        provision: its mode; ``off`` looks at nothing.
    """
    dead_letters = {each.dead_letter_topic for each in desired.subscriptions}
    kept = {each.name for each in desired.subscriptions if each.topic in dead_letters}
    for subscription in desired.subscriptions:
        if subscription.name not in kept:
            yield Right(
                subscription.name, "pubsub.subscriptions.consume", SUBSCRIBER, "to take messages"
            )
    yield from _publishing(desired, dead_letters)
    if provision != "off":
        why = f"to compare it, as CONVOTIC_PROVISION={provision} has it"
        for subscription in desired.subscriptions:
            yield Right(subscription.name, "pubsub.subscriptions.get", VIEWER, why)
    if provision == "verify":  # create does not look at topics, it creates them
        for topic in desired.topics:
            if not _is_control(topic.name, desired.prefix):
                yield Right(topic.name, "pubsub.topics.get", VIEWER, why)


def _publishing(desired: Desired, dead_letters: set[str]) -> Iterator[Right]:
    for topic in desired.topics:
        if topic.name in dead_letters:
            why, is_vital = (
                "for dead letters: without it, failed messages are retried forever",
                True,
            )
        elif _is_control(topic.name, desired.prefix):
            why, is_vital = "for remote control and events", False
        else:
            why, is_vital = "for replays, delayed messages and handler.delay()", False
        yield Right(topic.name, "pubsub.topics.publish", PUBLISHER, why, is_vital)


def _is_control(path: str, prefix: str) -> bool:
    return path.rpartition("/")[2].removeprefix(prefix) in _CONTROL_TOPICS
