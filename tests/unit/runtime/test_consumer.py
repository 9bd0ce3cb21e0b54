"""Celery's consumer, with messages it can't use."""

from __future__ import annotations

import threading
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker.consumer import Consumer
from kombu.utils.limits import TokenBucket

from convotic_celery.runtime.pool.pool import TaskPool
from convotic_celery.runtime.worker.consumer import HandlerConsumer
from convotic_celery.runtime.worker.request import HandlerRequest
from convotic_pubsub.errors import BrokerUnavailable
from tests.support.waiting import wait_until
from tests.unit.runtime.support import define, make_app, make_consumer


class Message:
    """Records whether it was rejected."""

    delivery_info = {"routing_key": "orders.new.shop"}  # noqa: RUF012 - as kombu's
    acknowledged = False
    content_type = "application/json"

    def __init__(self) -> None:
        self.rejected = 0

    def reject_log_error(self, _logger: Any, _errors: Any) -> None:
        self.rejected += 1


def make_failing(
    monkeypatch: pytest.MonkeyPatch, pool: TaskPool, error: Exception | None
) -> HandlerConsumer:
    """Return a consumer whose inherited message handler raises."""

    def handle(_message: Any) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(Consumer, "create_task_handler", lambda _self: handle)
    return make_consumer(make_app(define()), pool)


@pytest.mark.parametrize("error", [KeyError("id"), ValueError("not a triple"), RecursionError()])
def test_an_unusable_message_is_rejected_and_the_worker_goes_on(
    monkeypatch: pytest.MonkeyPatch, pool: TaskPool, error: Exception
) -> None:
    """Celery lets these end the worker; the message would come back and end the next one."""
    message = Message()
    make_failing(monkeypatch, pool, error).create_task_handler()(message)

    assert message.rejected == 1


def test_a_usable_message_is_left_alone(monkeypatch: pytest.MonkeyPatch, pool: TaskPool) -> None:
    """Its request settles it."""
    message = Message()
    make_failing(monkeypatch, pool, None).create_task_handler()(message)

    assert message.rejected == 0


def test_a_lost_broker_is_celerys_to_handle(
    monkeypatch: pytest.MonkeyPatch, pool: TaskPool
) -> None:
    """Connection errors pass: Celery reconnects on them."""
    message = Message()
    with pytest.raises(BrokerUnavailable):
        make_failing(monkeypatch, pool, BrokerUnavailable()).create_task_handler()(message)

    assert message.rejected == 0


def test_what_can_t_be_decoded_is_rejected_and_not_acknowledged(
    monkeypatch: pytest.MonkeyPatch, pool: TaskPool
) -> None:
    """Celery acknowledges it: it would vanish."""
    message = Message()
    make_failing(monkeypatch, pool, None).on_decode_error(message, ValueError("bad"))

    assert message.rejected == 1


def test_a_message_without_a_queue_is_named_so(pool: TaskPool) -> None:
    """The log line works for anything."""
    message = SimpleNamespace(delivery_info=None, reject_log_error=lambda *_: None)
    consumer = make_consumer(make_app(define()), pool)

    consumer.on_decode_error(message, ValueError("bad"))


class WaitingRequest(HandlerRequest):
    """Records whether it was given back."""

    def __init__(self) -> None:
        self.handed_back = 0

    def return_unrun(self) -> None:
        self.handed_back += 1


def test_a_rate_limit_that_the_pool_meets_gives_the_message_back(pool: TaskPool) -> None:
    """It was set while the message was on its way; its timers belong to Celery's loop."""
    consumer = make_consumer(make_app(define()), pool)
    request = WaitingRequest()

    pool.call_soon(partial(consumer._limit_task, request, SimpleNamespace(), 1))

    wait_until(lambda: request.handed_back)


def test_the_pool_has_what_has_no_rate_limit(pool: TaskPool) -> None:
    """And nothing once it has stopped: Celery's loop gives that back."""
    consumer = make_consumer(make_app(define()), pool)
    consumer.task_buckets = {"limited": TokenBucket(1), "free": None}
    handed_over: list[str] = []
    arrival: Any = SimpleNamespace(
        deliver=lambda: handed_over.append(threading.current_thread().name)
    )

    assert not consumer._pass("limited", arrival)
    assert consumer._pass("free", arrival)
    wait_until(lambda: handed_over)
    pool.stop()

    assert not consumer._pass("free", arrival)
    assert handed_over == ["convotic-pool"]
