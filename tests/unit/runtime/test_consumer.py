"""Celery's consumer, with messages it can't use."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker.consumer import Consumer

from convotic_celery.runtime.consumer import HandlerConsumer


class BrokerLost(Exception):
    """Stands for the transport's connection error."""


class Message:
    """Records whether it was rejected."""

    delivery_info = {"routing_key": "orders.new.shop"}  # noqa: RUF012 - as kombu's
    acknowledged = False
    content_type = "application/json"

    def __init__(self) -> None:
        self.rejected = 0

    def reject_log_error(self, _logger: Any, _errors: Any) -> None:
        self.rejected += 1


def make_consumer(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> HandlerConsumer:
    """Return a consumer whose inherited message handler raises."""

    def handle(_message: Any) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(Consumer, "create_task_handler", lambda _self: handle)
    consumer = HandlerConsumer.__new__(HandlerConsumer)
    consumer.__dict__.update(connection_errors=(BrokerLost,), channel_errors=())
    return consumer


@pytest.mark.parametrize("error", [KeyError("id"), ValueError("not a triple"), RecursionError()])
def test_an_unusable_message_is_rejected_and_the_worker_goes_on(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Celery lets these end the worker; the message would come back and end the next one."""
    message = Message()
    make_consumer(monkeypatch, error).create_task_handler()(message)

    assert message.rejected == 1


def test_a_usable_message_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request settles it."""
    message = Message()
    make_consumer(monkeypatch, None).create_task_handler()(message)

    assert message.rejected == 0


def test_a_lost_broker_is_celerys_to_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connection errors pass: Celery reconnects on them."""
    message = Message()
    with pytest.raises(BrokerLost):
        make_consumer(monkeypatch, BrokerLost()).create_task_handler()(message)

    assert message.rejected == 0


def test_what_can_t_be_decoded_is_rejected_and_not_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Celery acknowledges it: it would vanish."""
    message = Message()
    make_consumer(monkeypatch, None).on_decode_error(message, ValueError("bad"))

    assert message.rejected == 1


def test_a_message_without_a_queue_is_named_so() -> None:
    """The log line works for anything."""
    message = SimpleNamespace(delivery_info=None, reject_log_error=lambda *_: None)
    consumer = HandlerConsumer.__new__(HandlerConsumer)
    consumer.__dict__.update(connection_errors=())

    consumer.on_decode_error(message, ValueError("bad"))
