"""What exists on the server, as far as a plan needs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from convotic_celery.topology.values import Actual, Desired, replacement_of
from convotic_pubsub.errors import AccessDenied

if TYPE_CHECKING:
    from convotic_pubsub.client.backlog_size import BacklogSize
    from convotic_pubsub.session import Session

__all__ = ["read_actual", "read_backlogs"]


def read_actual(session: Session, desired: Desired) -> Actual:
    """Read what exists. Blocks.

    Raises:
        AccessDenied: not even the wanted resources may be read (``roles/pubsub.viewer``).
        BrokerUnavailable: the server does not answer.
    """
    admin = session.admin
    try:
        topics = {each.name: each for each in admin.list_topics()}
        subscriptions = {each.name: each for each in admin.list_subscriptions()}
        is_complete = True
    except AccessDenied:
        topics, subscriptions, is_complete = {}, {}, False
    for topic in desired.topics:  # of another project, or because listing is forbidden
        if topic.name not in topics and (not is_complete or _is_foreign(topic.name, desired)):
            found = admin.get_topic(topic.name)
            topics.update({found.name: found} if found else {})
    for wanted in desired.subscriptions:
        for name in (wanted.name, replacement_of(wanted.name)):
            if name not in subscriptions and (not is_complete or _is_foreign(name, desired)):
                known = admin.get_subscription(name)
                subscriptions.update({known.name: known} if known else {})
    bindings = {
        each.resource: tuple(admin.bindings(each.resource))
        for each in desired.bindings
        if each.resource in topics or each.resource in subscriptions
    }
    return Actual(topics, subscriptions, admin.is_emulated, is_complete, bindings)


def read_backlogs(session: Session, names: Iterable[str]) -> Mapping[str, BacklogSize]:
    """Return how many messages subscriptions have, where that is known. Blocks."""
    wanted = list(names)
    return session.resources.backlog_sizes(wanted) if wanted else {}


def _is_foreign(name: str, desired: Desired) -> bool:
    return not name.startswith(f"projects/{desired.project}/")
