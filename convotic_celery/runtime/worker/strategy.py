"""How a worker takes a handler's message: Celery's strategy, for what is always the same here.

A raw message has no envelope of an older protocol, no ETA and no expiry, its body is not decoded,
and its request acknowledges by itself (``request.py``). What is left is what Celery's own does
then: the same line in the log, signal, event, check for a revocation, and turn in a token bucket.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from celery import signals
from celery.app import trace
from celery.worker import state, strategy

from convotic_celery.runtime.delivery.observing import MessageTaken, observers
from convotic_celery.runtime.delivery.payload import CONTENT_TYPE
from convotic_celery.runtime.worker.request_class import request_maker

__all__ = ["Strategy", "handler_strategy"]

logger = logging.getLogger(strategy.logger.name)

#: Takes a message, its body if that is decoded, promises to acknowledge and to reject it, and what
#: is to be called with its request.
Strategy: TypeAlias = Callable[[Any, Any, Any, Any, Iterable[Callable[[Any], Any]]], None]


def handler_strategy(task: Any, app: Any, consumer: Any) -> Strategy:
    """Return what a consumer calls with a handler's messages (Celery's ``Task.Strategy``)."""
    hostname, errors, eventer = (
        consumer.hostname,
        consumer.connection_errors,
        consumer.event_dispatcher,
    )
    make_request: Any = request_maker(task, consumer.pool, hostname, eventer, errors)
    sends_events = bool(eventer and eventer.enabled and task.send_events)
    # Our own line about a run comes at its end.
    logs = logger.isEnabledFor(logging.INFO) and not getattr(app.log, "has_run_lines", False)
    limits_rates = not consumer.disable_rate_limits
    revoked = consumer.controller.state.revoked
    run = consumer.on_task_request

    def take(
        message: Any,
        body: Any,
        ack: Any,
        reject: Any,
        callbacks: Iterable[Callable[[Any], Any]],
    ) -> None:
        if message.content_type != CONTENT_TYPE:  # it can't be run, and fails as a task does
            strategy.default(task, app, consumer)(message, body, ack, reject, callbacks)
            return
        request = make_request(message)
        if observers.taken:
            observers.report(observers.taken, MessageTaken(request.observed, time.time()))
        if logs:
            _log(request)
        if request.id in revoked and request.revoked():
            return
        if signals.task_received.receivers:
            signals.task_received.send(sender=consumer, request=request)
        if sends_events:
            _announce(request)
        bucket = consumer.task_buckets[task.name] if limits_rates else None
        if bucket:
            consumer._limit_task(request, bucket, 1)
            return
        state.task_reserved(request)
        for callback in callbacks:
            callback(request)
        run(request)

    return take


def _log(request: Any) -> None:
    context = {
        "id": request.id,
        "name": request.name,
        "args": request.argsrepr,
        "kwargs": request.kwargsrepr,
        "eta": None,
    }
    logger.info(trace.LOG_RECEIVED, context, extra={"data": context})


def _announce(request: Any) -> None:
    request.send_event(
        "task-received",
        name=request.name,
        args=request.argsrepr,
        kwargs=request.kwargsrepr,
        root_id=request.root_id,
        parent_id=request.parent_id,
        retries=request.request_dict["retries"],
        eta=None,
        expires=None,
    )
