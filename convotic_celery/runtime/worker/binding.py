"""A handler's three faces: its Celery task, its kombu queue, and its queue on Pub/Sub.

All derived from one :class:`HandlerDefinition`, and all of one name. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kombu import Exchange, Queue

from convotic_celery.names import prefixed
from convotic_celery.runtime.execution.batches import Batches
from convotic_celery.runtime.execution.invoke import Execution
from convotic_celery.runtime.execution.task import HandlerTask
from convotic_celery.runtime.locks.key_lock import KeyLock
from convotic_celery.sdk.rate import parse_rate
from convotic_pubsub.limits import MAX_RETENTION_SECONDS
from convotic_pubsub.queue import DeliveryPolicy, QueueSpec

if TYPE_CHECKING:
    from convotic_celery.runtime.delivery.attempts import AttemptLog
    from convotic_celery.runtime.delivery.replays import ReplayTokens
    from convotic_celery.runtime.execution.invoke import ContextSource
    from convotic_celery.runtime.execution.lifespans import Lifespans
    from convotic_celery.runtime.locks.key_lock import KeyStore
    from convotic_celery.runtime.publish import HandlerPublisher
    from convotic_celery.sdk.handler import HandlerDefinition
    from convotic_pubsub.queue import DeadLetterListener

__all__ = ["kombu_queue", "make_execution", "make_task", "queue_spec"]


def make_execution(  # noqa: PLR0917 - one of each, all of other types
    definition: HandlerDefinition,
    contexts: ContextSource,
    store: KeyStore,
    attempts: AttemptLog,
    replays: ReplayTokens,
    lifespans: Lifespans,
) -> Execution:
    """Return what the handler's runs need, and nothing that its options don't ask for."""
    return Execution(
        definition,
        contexts,
        store,
        attempts,
        replays,
        guard=KeyLock(definition, store) if definition.options.needs_store else None,
        lifespans=lifespans if definition.lifespan else None,
        batches=Batches() if definition.options.batch else None,
    )


def make_task(execution: Execution, publisher: HandlerPublisher) -> HandlerTask:
    """Return the task that runs a handler; it is not bound to an app yet."""
    definition = execution.definition
    handler = definition.handler
    attributes = {
        "name": definition.queue,
        "definition": definition,
        "execution": execution,
        "publisher": publisher,
        "max_retries": definition.options.max_retries,
        "rate_limit": _celery_rate(definition.options.rate_limit),
        "run": staticmethod(handler),
        # By name, as Celery has them: only workers import these.
        "Request": "convotic_celery.runtime.worker.request:HandlerRequest",
        "Strategy": "convotic_celery.runtime.worker.strategy:handler_strategy",
        "__doc__": handler.__doc__,
        "__module__": handler.__module__,
    }
    name = getattr(handler, "__name__", type(handler).__name__)
    task: HandlerTask = type(name, (HandlerTask,), attributes)()
    return task


def _celery_rate(rate: str | float | None) -> float | None:
    """Return a rate as Celery's worker takes it: messages a second, None for no limit."""
    return None if rate is None else parse_rate(rate)


def kombu_queue(definition: HandlerDefinition) -> Queue:
    """Return the queue for Celery's ``task_queues``; its exchange is named as the topic.

    Topic and subscription are the transport's to create, from :func:`queue_spec`.
    """
    exchange = Exchange(definition.topic, type="direct")
    return Queue(definition.queue, exchange=exchange, routing_key=definition.queue)


def queue_spec(
    definition: HandlerDefinition,
    policy: DeliveryPolicy,
    *,
    max_concurrency: int | None = None,
    prefix: str = "",
    dead_letter_retention_seconds: int = MAX_RETENTION_SECONDS,
    on_dead_letter: DeadLetterListener | None = None,
) -> QueueSpec:
    """Return what the transport must know to create and consume the handler's subscription.

    Args:
        definition: The handler.
        policy: Its policy.
        max_concurrency: What the worker's pool can run in all (``-c``); it bounds the pull as well.
        prefix: Put before the names of its resources, but those that an option names.
        dead_letter_retention_seconds: How long its dead letters are kept.
        on_dead_letter: Told of each dead letter that is confirmed.

    Raises:
        ModuleError: With the prefix a name is too long.
    """
    options = definition.options
    concurrency = min(options.slots, max_concurrency or options.slots)
    return QueueSpec(
        queue=definition.queue,
        topic=prefixed(prefix, definition.topic, "topic"),
        subscription=(
            options.subscription or prefixed(prefix, definition.subscription, "subscription")
        ),
        policy=policy,
        filter=definition.filter_expression,
        dead_letter_topic=(
            options.dead_letter_topic
            or prefixed(prefix, definition.dead_letter_topic, "dead-letter topic")
        ),
        dead_letter_retention_seconds=dead_letter_retention_seconds,
        max_delivery_attempts=options.max_delivery_attempts,
        ack_deadline_seconds=options.ack_deadline,
        concurrency=concurrency,
        buffer_messages=options.buffer,
        max_waiting_retries=options.max_waiting_retries,
        message_retention_seconds=int(options.retention),
        enable_message_ordering=options.enable_message_ordering,
        enable_exactly_once_delivery=options.enable_exactly_once_delivery,
        labels={"convotic": "handler"},
        on_dead_letter=on_dead_letter,
    )
