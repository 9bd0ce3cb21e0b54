"""Celery's consumer, which never drops a message and never dies of one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from celery.concurrency.solo import TaskPool as SoloPool
from celery.exceptions import WorkerTerminate
from celery.platforms import EX_FAILURE
from celery.worker import state
from celery.worker.consumer import Consumer

from convotic_celery.runtime.delivery.payload import CONTENT_TYPE
from convotic_celery.runtime.execution.loop import stop_process_loop
from convotic_celery.runtime.execution.task import HandlerTask
from convotic_celery.runtime.pool.pool import TaskPool
from convotic_celery.runtime.pool.thread_pool import ThreadPool
from convotic_celery.runtime.worker.mingling import mingle_in_background
from convotic_celery.runtime.worker.request import HandlerRequest

if TYPE_CHECKING:
    from convotic_celery.runtime.worker.strategy import Strategy
    from convotic_pubsub.kombu.channel import QueuedMessage

__all__ = ["HandlerConsumer"]

logger = logging.getLogger(__name__)


class HandlerConsumer(Consumer):
    """Rejects (so: dead-letters) what can't be run.

    Celery acknowledges what it can't decode, and lets any other error of its message handling end
    the worker: the message comes back, and ends the next one.
    """

    connection_errors: tuple[type[BaseException], ...]
    channel_errors: tuple[type[BaseException], ...]
    task_buckets: dict[str, Any]
    task_consumer: Any
    steps: list[Any]
    strategies: dict[str, Strategy]
    on_task_message: set[Callable[[Any], Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mingle_in_background(self)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Reject a message whose body can't be decoded."""
        logger.error(
            "A message of %s can't be decoded and goes to its dead-letter topic: %r",
            _queue_of(message),
            exc,
        )
        message.reject_log_error(logger, self.connection_errors)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Return what the event loop calls with each message."""
        handle = super().create_task_handler(*args, **kwargs)
        broker_errors = (*self.connection_errors, *self.channel_errors)

        def handle_or_reject(message: Any) -> None:
            try:
                if message.content_type == CONTENT_TYPE:
                    # As Celery would, but without the promises that it makes for each message.
                    take = self.strategies[message.headers["task"]]
                    take(message, None, None, None, self.on_task_message)
                else:
                    handle(message)
            except broker_errors:
                raise  # Celery reconnects
            except Exception:
                logger.exception(
                    "A message of %s can't be handled and goes to its dead-letter topic",
                    _queue_of(message),
                )
                if not message.acknowledged:
                    message.reject_log_error(logger, self.connection_errors)

        return handle_or_reject

    def on_ready(self) -> None:
        """Announce the worker, and from now on have the pool take async handlers' messages itself.

        Celery's loop would only be one more thread to wake up.
        """
        tasks = []
        if isinstance(self.pool, TaskPool):
            tasks = [t for t in self.app.tasks.values() if isinstance(t, HandlerTask)]
        for task in tasks:
            self.pool.prepare(task.name)
        super().on_ready()
        for task in tasks:
            if task.runs_on_loop:
                self.task_consumer.channel.redirect(task.name, partial(self._pass, task.name))

    def _pass(self, name: str, queued: QueuedMessage) -> bool:
        """Have the pool take a message; False if this loop must (on the transport's I/O thread)."""
        if self.task_buckets.get(name):
            return False  # it may have to wait, for a timer of this loop
        try:
            self.pool.call_soon(queued.deliver)
        except RuntimeError:
            return False
        return True

    def on_close(self) -> None:
        """Give back what waits for its rate limit: Celery would forget it, and let it lapse."""
        for bucket in self.task_buckets.values():
            for request, _ in list(bucket.contents) if bucket else ():
                if isinstance(request, HandlerRequest):
                    request.return_unrun()
        super().on_close()

    def cancel_active_requests(self) -> None:
        """Stop what runs (a cold stop, in its signal handler), and return its messages.

        Celery asks the pool to end each job. Two of its pools can't: their coroutines are cancelled
        here, a run of ``solo`` is left by an exception, and threads are left behind.

        Raises:
            WorkerTerminate: ``solo`` runs something, in this thread.
        """
        if not isinstance(self.pool, SoloPool | ThreadPool):
            super().cancel_active_requests()
            return
        running = list(state.active_requests)
        requests = [each for each in running if isinstance(each, HandlerRequest)]
        for request in requests:
            request.is_cancelled = True  # its thread may see the end of its coroutine first
        stop_process_loop()
        for request in requests:
            request.return_unrun()
        if isinstance(self.pool, ThreadPool):
            self.pool.abandon()
        elif running:
            raise WorkerTerminate(EX_FAILURE)

    def _limit_task(self, request: Any, bucket: Any, tokens: int) -> Any:
        """Have a message wait for its turn, which ``rate_limit`` says, with its lease held."""
        if isinstance(self.pool, TaskPool) and self.pool.is_this_thread:
            request.return_unrun()  # the limit is new; the redelivery goes to Celery's loop
            return None
        if isinstance(request, HandlerRequest):
            wait = bucket.expected_time(len(bucket.contents) + tokens)
            request.hold(wait + request.run_limit)
        return super()._limit_task(request, bucket, tokens)  # type: ignore[misc]  # not in celery-types


def _queue_of(message: Any) -> str:
    return str((message.delivery_info or {}).get("routing_key", "an unknown queue"))
