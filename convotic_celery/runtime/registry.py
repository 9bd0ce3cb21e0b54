"""A handler's three faces: its Celery task, its kombu queue, and its queue on Pub/Sub.

All derived from one :class:`HandlerDefinition`, and all of one name. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kombu import Exchange, Queue

from convotic_celery.runtime.task import HandlerTask
from convotic_pubsub.queue import DeliveryPolicy, QueueSpec

if TYPE_CHECKING:
    from convotic_celery.runtime.publish import HandlerPublisher
    from convotic_celery.runtime.run import ContextSource
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = ["kombu_queue", "make_task", "queue_spec"]


def make_task(
    definition: HandlerDefinition, contexts: ContextSource, publisher: HandlerPublisher
) -> HandlerTask:
    """Return the task that runs a handler; it is not bound to an app yet."""
    handler = definition.handler
    attributes = {
        "name": definition.queue,
        "definition": definition,
        "contexts": contexts,
        "publisher": publisher,
        "max_retries": definition.options.max_retries,
        "run": staticmethod(handler),
        "__doc__": handler.__doc__,
        "__module__": handler.__module__,
    }
    name = getattr(handler, "__name__", type(handler).__name__)
    task: HandlerTask = type(name, (HandlerTask,), attributes)()
    return task


def kombu_queue(definition: HandlerDefinition) -> Queue:
    """Return the queue for Celery's ``task_queues``; its exchange is named as the topic.

    Topic and subscription are the transport's to create, from :func:`queue_spec`.
    """
    exchange = Exchange(definition.topic, type="direct")
    return Queue(definition.queue, exchange=exchange, routing_key=definition.queue)


def queue_spec(
    definition: HandlerDefinition, policy: DeliveryPolicy, *, max_concurrency: int | None = None
) -> QueueSpec:
    """Return what the transport must know to create and consume the handler's subscription.

    Args:
        definition: The handler.
        policy: Its policy.
        max_concurrency: What the worker's pool can run in all (``-c``); it bounds the pull as well.
    """
    options = definition.options
    concurrency = min(options.concurrency, max_concurrency or options.concurrency)
    return QueueSpec(
        queue=definition.queue,
        topic=definition.topic,
        subscription=definition.subscription,
        policy=policy,
        filter=definition.filter_expression,
        dead_letter_topic=definition.dead_letter_topic,
        max_delivery_attempts=options.max_delivery_attempts,
        ack_deadline_seconds=options.ack_deadline,
        deadline_grace_seconds=options.deadline_grace,
        concurrency=concurrency,
        buffer_messages=concurrency,
        max_waiting_retries=options.max_waiting_retries,
        message_retention_seconds=int(options.retention),
        enable_message_ordering=options.enable_message_ordering,
        enable_exactly_once_delivery=options.enable_exactly_once_delivery,
        labels={"convotic": "handler"},
    )
