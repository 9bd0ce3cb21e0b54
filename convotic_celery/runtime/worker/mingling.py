"""Asking other workers what was revoked, without waiting for it: :func:`mingle_in_background`.

Celery's worker waits a second for their answers before it takes its first message. Ours has read
from the store by then what was revoked (``revokes.py``). What others know besides is taken in when
they answer; where the store could not be read, or no thread can start, the worker waits as
Celery's does.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from celery.worker import state
from celery.worker.consumer.mingle import Mingle

from convotic_celery.runtime.celery_internals import is_stopping
from convotic_pubsub.kombu.integrations import report_unasked_workers
from convotic_pubsub.threads import LazyThread

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["mingle_in_background"]

logger = logging.getLogger(__name__)

#: As long as Celery's worker waits.
_ANSWER_SECONDS = 1.0


def mingle_in_background(consumer: Any) -> None:
    """Have Celery's consumer, which is about to start, ask the others in a thread of its own."""
    for step in consumer.steps:
        if step.label == Mingle.label:
            step.sync = partial(_start, step)


def _start(step: Any, consumer: Any) -> None:
    if not consumer.app.revokes.are_known:
        Mingle.sync(step, consumer)
        return
    asking = partial(_ask, step, consumer, list(state.revoked))
    try:
        LazyThread(asking, name="convotic-mingle").start()
    except RuntimeError:  # no thread can start
        Mingle.sync(step, consumer)


def _ask(step: Any, consumer: Any, revoked: Sequence[str]) -> None:
    inspect = consumer.app.control.inspect(timeout=_ANSWER_SECONDS)
    try:
        answers = inspect.hello(consumer.hostname, revoked) or {}
    except Exception as error:  # noqa: BLE001 - the worker goes on without their answers
        if not is_stopping() and not consumer.controller.has_failed:
            report_unasked_workers(error)
        return
    answers.pop(consumer.hostname, None)
    logger.debug("%d other workers have answered", len(answers))
    for name, answer in answers.items():
        if answer:
            consumer.call_soon(step.on_node_reply, consumer, name, answer)
