"""What a deployment needs in Pub/Sub: topics, subscriptions, bindings for dead letters. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from convotic_celery.topology.values import (
    PUBLISHER,
    SUBSCRIBER,
    Desired,
    WantedBinding,
    service_agent,
)
from convotic_pubsub.celery.control_subscription import control_topic
from convotic_pubsub.celery.envelope import celery_queue
from convotic_pubsub.names import topic_path
from convotic_pubsub.topology import (
    SubscriptionSettings,
    TopicSettings,
    wanted_dead_letter_subscription,
    wanted_subscription,
    wanted_topics,
)

if TYPE_CHECKING:
    from convotic_pubsub.options import TransportOptions

__all__ = ["make_desired"]

#: The queue of ordinary Celery tasks, which every worker has.
_CELERY_QUEUE: Final = "celery"


def make_desired(options: TransportOptions, *, project_number: str = "") -> Desired:
    """Return the topology of the queues that a worker with these options consumes.

    Args:
        options: with a specification of each handler's queue.
        project_number: of the project, for the bindings of the service's own dead-lettering.

    Raises:
        OptionError: a name breaks Pub/Sub's rules.
    """
    topics: dict[str, TopicSettings] = {}
    subscriptions: dict[str, SubscriptionSettings] = {}
    for spec in [*options.queues.values(), celery_queue(_CELERY_QUEUE, options)]:
        for topic in wanted_topics(spec, options):
            topics.setdefault(topic.name, topic)
        # Dead letters first: what is forwarded before their subscription exists is lost.
        kept = wanted_dead_letter_subscription(spec, options)
        for each in (kept, wanted_subscription(spec, options)):
            if each is not None:
                subscriptions.setdefault(each.name, each)
    for topic in _control_topics(options):
        topics.setdefault(topic.name, topic)
    agent = service_agent(project_number) if project_number else ""
    return Desired(
        options.project,
        tuple(topics.values()),
        tuple(subscriptions.values()),
        tuple(_bindings(subscriptions.values(), agent)) if agent else (),
        options.prefix,
    )


def _control_topics(options: TransportOptions) -> list[TopicSettings]:
    """Return the topics of remote control and events; each process makes its own subscription."""
    return [
        TopicSettings(
            name=topic_path(options.project, control_topic(topic, options.prefix)),
            labels={**options.labels, "convotic": "ephemeral"},
            message_storage_regions=tuple(options.message_storage_regions),
        )
        for topic in ("control", "events")
    ]


def _bindings(subscriptions: Iterable[SubscriptionSettings], agent: str) -> Iterable[WantedBinding]:
    """Yield what the service's own dead-lettering needs: without it, it does nothing, silently."""
    for subscription in subscriptions:
        if subscription.dead_letter_topic:
            yield WantedBinding(subscription.dead_letter_topic, PUBLISHER, agent)
            yield WantedBinding(subscription.name, SUBSCRIBER, agent)
