"""What the options of control do to a message: in each pool, to each settlement."""

# ruff: noqa: ARG001, ARG002 - handlers and hooks take (message, ctx), used or not

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker.consumer import Consumer

from convotic_celery.errors import AckDeadlineExceeded, InvalidMessage
from convotic_celery.runtime.delivery.outcome import Raised, settle
from convotic_celery.runtime.delivery.policy import HandlerPolicy
from convotic_celery.runtime.delivery.settlement import (
    Defer,
    Deferred,
    Fail,
    KeySucceeded,
    RetryRun,
)
from convotic_celery.runtime.delivery.steps import Pause, Steps
from convotic_celery.runtime.execution.deadline import RunDeadline
from convotic_celery.runtime.locks.key_lock import HeldKeys
from convotic_celery.runtime.pool.pool import TaskPool
from convotic_celery.runtime.worker.consumer import HandlerConsumer
from convotic_celery.sdk.options import WorkerOptions
from convotic_celery.sdk.outcomes import Retry
from convotic_pubsub.queue import Acknowledge, Deliver
from tests.support.waiting import wait_until
from tests.unit.runtime.support import (
    PUBLISHED_AT,
    RecordingMessage,
    define,
    make_app,
    make_consumer,
    make_request,
    receive,
)


def decide(error: Exception, **options: Any) -> object:
    return settle(Raised(error), WorkerOptions(**options))


@pytest.mark.parametrize(
    ("options", "error", "is_retried"),
    [
        ({"retry_on": OSError}, ConnectionError("a kind of it"), True),
        ({"retry_on": OSError}, ValueError("another"), False),
        ({"retry_on": OSError}, Retry(delay=3), True),
        ({"retry_on": OSError}, AckDeadlineExceeded("orders", 30), True),
        ({"retry_on": OSError, "on_invalid": "retry"}, InvalidMessage("x"), True),
        ({"no_retry_on": ConnectionError}, ConnectionError("it"), False),
        ({"no_retry_on": ConnectionError}, OSError("not it"), True),
        ({"no_retry_on": AckDeadlineExceeded}, AckDeadlineExceeded("orders", 30), False),
        ({"retry_on": OSError, "no_retry_on": ConnectionError}, ConnectionError(), False),
    ],
)
def test_which_errors_are_worth_a_retry(
    options: dict[str, Any], error: Exception, is_retried: bool
) -> None:
    """no_retry_on is the stronger; outcomes and deadlines are not retry_on's business."""
    assert isinstance(decide(error, **options), RetryRun if is_retried else Fail)


def test_what_is_not_retried_is_rejected() -> None:
    """A deadline keeps its own reason."""
    options = {"no_retry_on": [ValueError, AckDeadlineExceeded], "max_retries": 0}

    reasons = [
        getattr(decide(error, **options), "reason", None)
        for error in (ValueError(), AckDeadlineExceeded("orders", 30), KeyError())
    ]

    assert reasons == ["rejected", "ack-deadline-exceeded", "max-retries-exceeded"]


def test_a_deferral_is_no_attempt() -> None:
    """Whatever attempt it is."""
    deferred = Deferred("its key is busy", 20.0)

    found = settle(Raised(deferred), WorkerOptions(max_retries=0), attempt=9)

    assert found == Defer(20.0, "its key is busy")


def run(pool: Any, error: Exception, *, guard: Any = None, **options: Any) -> RecordingMessage:
    """Run a handler that raises, as a worker does, and return its settled message."""

    async def handler(message: Any, ctx: Any) -> None:
        raise error

    definition = define(handler, **options)
    app = make_app(definition)
    pool.app = app
    if guard is not None:
        task: Any = app.tasks[definition.queue]
        task.execution = replace(task.execution, guard=guard)
    request, message, eventer = make_request(app, definition, pool, receive())
    request.execute_using_pool(pool)
    wait_until(message.settled.is_set)
    wait_until(lambda: len(eventer.events) >= 2)
    return message


def test_a_deferred_message_is_delivered_again_unfailed(any_pool: Any) -> None:
    """Its settlement records neither failure nor loss."""
    message = run(any_pool, Deferred("its key is busy", 20.0))

    assert message.settlement == ("defer", 20.0)


class BusyKey:
    """Stands for a KeyLock whose key is free after a while."""

    freed_at = 0.0

    def acquire(self, message: Any, control: RunDeadline) -> Steps[HeldKeys]:
        yield Pause(0.3)
        self.freed_at = time.monotonic()
        control.restart(10.0)
        return HeldKeys()

    def release(self, claim: HeldKeys) -> Steps[None]:
        yield from ()


def test_the_wait_for_a_key_is_not_the_handler_s_time(any_pool: Any) -> None:
    """A failed message is redelivered an ack deadline after the handler began, not the wait."""
    guard = BusyKey()

    message = run(any_pool, ValueError(), guard=guard, ack_deadline=10)

    assert guard.freed_at > 0
    _, delay = message.settlement
    rounding = 0.001
    assert delay + rounding >= 10 - (message.settled_at - guard.freed_at)


def test_a_duplicate_is_acknowledged(any_pool: Any) -> None:
    """And counted as that."""
    message = run(any_pool, KeySucceeded("it has succeeded"))

    assert message.settlement == ("ack",)


def test_a_longer_lease_is_held_longer(any_pool: Any) -> None:
    """max_lease_duration and grace; a failed message still waits for the ack deadline."""
    message = run(any_pool, ValueError(), max_lease_duration=90, deadline_grace=5)

    assert message.held_seconds == 95
    kind, delay = message.settlement
    assert kind == "lapse"
    assert message.least_delay(30) <= delay <= 30


@pytest.mark.parametrize(("age", "runs"), [(60, True), (61, False)])
def test_old_messages_are_acknowledged_unrun(age: float, runs: bool) -> None:
    """Older than max_message_age, by the clock of the worker."""
    now = PUBLISHED_AT + timedelta(seconds=age)
    policy = HandlerPolicy(define(max_message_age=60), None, now=lambda: now)

    decision = policy.decide(receive())

    assert isinstance(decision, Deliver) if runs else decision == Acknowledge("expired")


def test_without_a_maximum_nobody_asks_for_the_time() -> None:
    """Nothing is added to the hot path."""

    def now() -> datetime:
        raise AssertionError(datetime.now(UTC))

    decision = HandlerPolicy(define(), None, now=now).decide(receive())

    assert isinstance(decision, Deliver)


class Bucket:
    """Stands for Celery's token bucket: one message in two seconds."""

    def __init__(self) -> None:
        self.contents: deque[tuple[Any, int]] = deque()

    def __bool__(self) -> bool:
        return True

    def expected_time(self, tokens: float) -> float:
        return tokens * 2.0


def make_limited(pool: Any) -> tuple[HandlerConsumer, Any, RecordingMessage]:
    definition = define(ack_deadline=30, deadline_grace=10, rate_limit="0.5/s")
    app = make_app(definition)
    task: Any = app.tasks[definition.queue]
    assert task.rate_limit == 0.5
    request, message, _ = make_request(app, definition, pool, receive())
    return make_consumer(app, pool), request, message


def test_a_message_that_waits_for_its_rate_keeps_its_lease(
    monkeypatch: pytest.MonkeyPatch, pool: TaskPool
) -> None:
    """For its turn, and the run that follows."""
    consumer, request, message = make_limited(pool)
    monkeypatch.setattr(Consumer, "_limit_task", lambda *_: None)
    bucket = Bucket()
    bucket.contents.extend([(object(), 1), (object(), 1)])

    consumer._limit_task(request, bucket, 1)

    assert message.held_seconds == 3 * 2 + 30 + 10


def test_what_waits_for_its_rate_is_handed_back_at_the_end(
    monkeypatch: pytest.MonkeyPatch, pool: TaskPool
) -> None:
    """Celery would forget it; ordinary tasks are Celery's business."""
    consumer, request, message = make_limited(pool)
    monkeypatch.setattr(Consumer, "on_close", lambda _: None)
    bucket = Bucket()
    bucket.contents.extend([(request, 1), (SimpleNamespace(), 1)])
    consumer.task_buckets = {"limited": bucket, "free": None}

    consumer.on_close()

    assert message.settlement == ("return_unrun",)
