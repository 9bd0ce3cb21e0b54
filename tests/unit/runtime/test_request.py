"""How each outcome settles its message, exactly once, and what monitors see.

Real tracer, real request class, real pools; only the message and the event dispatcher record.
"""

# ruff: noqa: ARG001 - handlers take (message, ctx), used or not

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from billiard.einfo import ExceptionInfo
from celery import exceptions as celery_exceptions
from celery.worker import state as worker_state

from convotic_celery.runtime.delivery.counters import outcomes
from convotic_celery.runtime.pool.pool import TaskPool
from convotic_celery.sdk.outcomes import DeadLetter, Drop, Retry
from convotic_pubsub.queue import Received
from tests.support.waiting import wait_until
from tests.unit.runtime.support import (
    RecordingEventer,
    RecordingMessage,
    define,
    forever,
    make_app,
    make_request,
    receive,
)


class Run(NamedTuple):
    """One request that was given to a pool."""

    request: Any
    message: RecordingMessage
    eventer: RecordingEventer

    def settled(self) -> tuple[Any, ...]:
        """Wait for the settlement and the last event."""
        # A failure is first written to a store that is not there: that alone takes two seconds.
        wait_until(self.message.settled.is_set)
        wait_until(lambda: len(self.eventer.events) >= 2)
        return self.message.settlement

    def attributes_now(self) -> dict[str, str]:
        """Return the dead letter's attributes; it has been settled."""
        kind, attributes = self.message.settlement
        assert kind == "dead_letter"
        found: dict[str, str] = attributes
        return found

    def attributes(self) -> dict[str, str]:
        """Return the dead letter's attributes, by their last part."""
        kind, attributes = self.settled()
        assert kind == "dead_letter"
        prefix = "convotic-dead-letter-"
        return {name.removeprefix(prefix): value for name, value in attributes.items()}


def run(
    pool: Any,
    handler: Callable[..., Any],
    received: Received | None = None,
    *,
    attempt: int = 1,
    **options: Any,
) -> Run:
    """Run a handler on a message, as a worker does."""
    request = prepare(pool, handler, received, attempt=attempt, **options)
    request.request.execute_using_pool(pool)
    return request


def prepare(
    pool: Any,
    handler: Callable[..., Any],
    received: Received | None = None,
    *,
    attempt: int = 1,
    **options: Any,
) -> Run:
    """Return a request that has not begun."""
    definition = define(handler, **{"max_retries": 2, **options})
    app = make_app(definition)
    pool.app = app
    return Run(*make_request(app, definition, pool, received, attempt=attempt))


def raising(error: BaseException) -> Callable[..., Any]:
    """Return an async handler that raises."""

    async def handler(message: Any, ctx: Any) -> None:
        await asyncio.sleep(0)
        raise error

    return handler


def raising_plain(error: BaseException) -> Callable[..., Any]:
    """Return a plain handler that raises."""

    def handler(message: Any, ctx: Any) -> None:
        raise error

    return handler


# -- each row of the table, in each pool -------------------------------------------------


def test_a_handler_that_returns_acknowledges(any_pool: Any) -> None:
    """Started, acknowledged, succeeded; the lease is held for deadline and grace."""
    seen: list[Any] = []

    async def handler(message: Any, ctx: Any) -> None:
        await asyncio.sleep(0)
        seen.append((message.id, message.data, message.attributes, message.attempt, ctx.attempt))

    done = run(any_pool, handler, receive(attributes={"a": "b"}), ack_deadline=20, deadline_grace=5)

    assert done.settled() == ("ack",)
    assert seen == [("m-1", {"id": 1}, {"a": "b"}, 1, 1)]
    assert done.message.held_seconds == 25
    assert done.eventer.kinds == ["task-started", "task-succeeded"]


@pytest.mark.parametrize("make", [raising, raising_plain])
def test_a_failed_run_is_not_acknowledged(any_pool: Any, make: Any) -> None:
    """The lease lapses at the ack deadline, one failure is counted, monitors see the exception."""
    failed = run(any_pool, make(ValueError("no")), ack_deadline=20)

    kind, delay = failed.settled()

    assert kind == "lapse"
    assert failed.message.least_delay(20) <= delay <= 20
    assert failed.eventer.kinds == ["task-started", "task-retried"]
    assert "ValueError('no')" in failed.eventer.events[1][1]["exception"]


@pytest.mark.parametrize("make", [raising, raising_plain])
def test_the_last_failure_is_dead_lettered(any_pool: Any, make: Any) -> None:
    """max_retries=2: the third run's error is the message's end."""
    failed = run(any_pool, make(ValueError("no")), attempt=3)

    attributes = failed.attributes()

    assert attributes["reason"] == "max-retries-exceeded"
    assert attributes["attempts"] == "3"
    assert (attributes["error-type"], attributes["error-message"]) == ("ValueError", "no")
    assert failed.eventer.kinds == ["task-started", "task-failed"]


@pytest.mark.parametrize("attempt", [1, 3])
def test_a_documents_length_of_error_text_is_no_event(any_pool: Any, attempt: int) -> None:
    """Monitors see its beginning and its end."""
    failed = run(any_pool, raising(ValueError("x" * 1_000_000)), attempt=attempt)

    failed.settled()
    fields = failed.eventer.events[-1][1]

    assert len(fields["exception"]) < 25_000
    assert len(fields["traceback"]) < 25_000


def test_a_handlers_own_delay_counts_as_an_attempt(any_pool: Any) -> None:
    """raise Retry(delay=7)."""
    assert run(any_pool, raising(Retry(delay=7))).settled() == ("lapse", 7.0)


def test_celerys_retry_means_the_same(any_pool: Any) -> None:
    """raise celery.exceptions.Retry(when=7)."""
    error = celery_exceptions.Retry(when=7)  # type: ignore[arg-type]  # numbers.Real

    assert run(any_pool, raising(error)).settled() == ("lapse", 7.0)


@pytest.mark.parametrize("error", [DeadLetter("bad"), celery_exceptions.Reject("bad")])
def test_a_handler_gives_up_at_once(any_pool: Any, error: Exception) -> None:
    """DeadLetter and Celery's Reject, on the first attempt."""
    failed = run(any_pool, raising(error))

    attributes = failed.attributes()

    assert (attributes["reason"], attributes["error-message"]) == ("rejected", "bad")
    assert failed.eventer.kinds == ["task-started", "task-failed"]


@pytest.mark.parametrize("error", [Drop("old"), celery_exceptions.Ignore("old")])
def test_a_handler_declines(any_pool: Any, error: Exception) -> None:
    """Drop and Celery's Ignore acknowledge; the result says so; it is counted."""
    before = outcomes.snapshot().get("orders.new.shop", {}).get("dropped", 0)
    dropped = run(any_pool, raising(error))

    assert dropped.settled() == ("ack",)
    assert dropped.eventer.kinds == ["task-started", "task-succeeded"]
    assert dropped.eventer.events[1][1]["result"] == "{'dropped': 'old'}"
    assert outcomes.snapshot()["orders.new.shop"]["dropped"] == before + 1


def test_invalid_data_never_reaches_the_handler(any_pool: Any) -> None:
    """Not JSON: dead-lettered with reason invalid, zero attempts, FAILURE."""

    async def handler(message: Any, ctx: Any) -> None:
        raise AssertionError("it was called")

    failed = run(any_pool, handler, receive(b"{not json"))

    attributes = failed.attributes()

    assert (attributes["reason"], attributes["attempts"]) == ("invalid", "0")
    assert failed.eventer.kinds == ["task-started", "task-failed"]


def test_a_message_without_data_runs(any_pool: Any) -> None:
    """data is None."""
    seen: list[Any] = []

    async def handler(message: Any, ctx: Any) -> None:
        seen.append(message.data)

    assert run(any_pool, handler, receive(b"", attributes={"a": "b"})).settled() == ("ack",)
    assert seen == [None]


def test_a_run_past_its_deadline_is_cancelled(any_pool: Any) -> None:
    """It is nacked (it has waited already) and its place is free."""

    async def handler(message: Any, ctx: Any) -> None:
        await forever()

    stopped = run(any_pool, handler, ack_deadline=1)

    assert stopped.settled() == ("lapse", 0.0)
    assert "AckDeadlineExceeded" in stopped.eventer.events[1][1]["exception"]


def test_the_last_run_past_its_deadline_is_dead_lettered(any_pool: Any) -> None:
    """With its own reason."""

    async def handler(message: Any, ctx: Any) -> None:
        await forever()

    stopped = run(any_pool, handler, ack_deadline=1, attempt=3)

    assert stopped.attributes()["reason"] == "ack-deadline-exceeded"


def test_the_handlers_own_timeout_is_an_ordinary_failure(any_pool: Any) -> None:
    """A TimeoutError that is not the ack deadline's waits as any error does."""
    failed = run(any_pool, raising(TimeoutError()), ack_deadline=20)

    kind, delay = failed.settled()

    assert kind == "lapse"
    assert failed.message.least_delay(20) <= delay <= 20


@pytest.mark.parametrize("make", [raising, raising_plain])
@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(3)], ids=["sys.exit", "generator"])
def test_sys_exit_in_a_handler_is_a_failure(any_pool: Any, make: Any, error: BaseException) -> None:
    """It ends neither loop nor worker."""
    failed = run(any_pool, make(error))

    assert failed.settled()[0] == "lapse"
    assert f"{type(error).__name__}(3)" in failed.eventer.events[1][1]["exception"]


def test_memory_error_at_the_end_is_settled(any_pool: Any) -> None:
    """Celery's worker would end itself on it; here the message is a dead letter."""
    assert run(any_pool, raising(MemoryError("big")), attempt=3).attributes()["attempts"] == "3"


# -- what ends a run from outside --------------------------------------------------------


def test_revoking_a_running_message_cancels_and_acknowledges(pool: TaskPool) -> None:
    """revoke(terminate=True): acknowledged once, event revoked, coroutine cancelled."""
    begun, cleaned = threading.Event(), threading.Event()

    async def handler(message: Any, ctx: Any) -> None:
        try:
            begun.set()
            await forever()
        finally:
            cleaned.set()

    running = run(pool, handler)
    wait_until(begun.is_set)
    running.request.terminate(pool)

    wait_until(cleaned.is_set)
    wait_until(lambda: not pool.info["running"])
    assert running.message.settlement == ("ack",)
    assert running.eventer.kinds == ["task-started", "task-revoked"]


def test_a_run_that_ends_before_its_revocation_is_announced_is_revoked(pool: TaskPool) -> None:
    """Whichever thread is first, the message is acknowledged and does not come back."""

    async def handler(message: Any, ctx: Any) -> None:
        await forever()

    running = run(pool, handler)
    wait_until(lambda: running.eventer.kinds == ["task-started"])

    class EarlyEnd:
        """The pool, whose job has ended when ``terminate_job`` returns."""

        def terminate_job(self, pid: int, signal: int) -> None:
            pool.terminate_job(pid, signal)
            wait_until(lambda: not pool.info["running"])

    running.request.terminate(EarlyEnd())

    assert running.message.settlement == ("ack",)
    assert running.eventer.kinds == ["task-started", "task-revoked"]


def test_a_message_revoked_before_it_began_is_acknowledged(pool: TaskPool) -> None:
    """It is not run."""

    async def handler(message: Any, ctx: Any) -> None:
        raise AssertionError("it was called")

    waiting = prepare(pool, handler)
    worker_state.revoked.add(waiting.request.id)
    with pytest.raises(celery_exceptions.TaskRevokedError):
        waiting.request.execute_using_pool(pool)

    assert waiting.message.settlement == ("ack",)
    assert waiting.eventer.kinds == ["task-revoked"]


def test_a_cold_shutdown_hands_back_what_it_cancelled(pool: TaskPool) -> None:
    """Celery cancels the active requests: no failure, no acknowledgement."""

    async def handler(message: Any, ctx: Any) -> None:
        await forever()

    running = run(pool, handler)
    wait_until(lambda: running.eventer.kinds == ["task-started"])
    running.request.cancel(pool, emit_retry=False)

    wait_until(running.message.settled.is_set)
    assert running.message.settlement == ("return_unrun",)


def test_a_hard_limit_with_attempts_left_is_a_retry(pool: TaskPool) -> None:
    """Prefork tells it twice, on_failure and then on_timeout; it is settled once."""
    waiting = prepare(pool, raising(ValueError()))
    waiting.request.on_failure(info(celery_exceptions.TimeLimitExceeded(30)))
    waiting.request.on_timeout(soft=False, timeout=30)

    assert waiting.message.settlement == ("lapse", 0.0)
    assert waiting.eventer.kinds == ["task-retried"]


def test_a_hard_limit_of_our_own_pool_is_settled_too(pool: TaskPool) -> None:
    """The default pool calls only on_timeout, without an error."""
    waiting = prepare(pool, raising(ValueError()))
    waiting.request.on_timeout(soft=False, timeout=30)

    assert waiting.message.settlement == ("lapse", 0.0)


def test_the_last_hard_limit_is_a_dead_letter(pool: TaskPool) -> None:
    """Also told twice, failed once."""
    waiting = prepare(pool, raising(ValueError()), attempt=3)
    waiting.request.on_failure(info(celery_exceptions.TimeLimitExceeded(30)))
    waiting.request.on_timeout(soft=False, timeout=30)

    assert waiting.attributes_now()["convotic-dead-letter-reason"] == "ack-deadline-exceeded"
    assert waiting.eventer.kinds == ["task-failed"]


def test_a_lost_child_is_a_loss_and_no_failure(pool: TaskPool) -> None:
    """The message is delivered again; Pub/Sub's count shows the loss."""
    waiting = prepare(pool, raising(ValueError()), ack_deadline=20)
    waiting.request.on_failure(info(celery_exceptions.WorkerLostError("killed")))

    assert waiting.message.settlement == ("lapse", 20.0)
    assert waiting.eventer.kinds == ["task-retried"]


def test_a_child_killed_by_our_own_shutdown_is_handed_back(
    pool: TaskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no failure."""
    waiting = prepare(pool, raising(ValueError()))
    monkeypatch.setattr(worker_state, "should_terminate", True)
    waiting.request.on_failure(info(celery_exceptions.WorkerLostError("killed")))

    assert waiting.message.settlement == ("return_unrun",)


@pytest.mark.parametrize(
    ("requeue", "settlement"), [(True, "return_unrun"), (False, "dead_letter")]
)
def test_what_celery_rejects_is_never_dropped(
    pool: TaskPool, requeue: bool, settlement: str
) -> None:
    """Requeue gives the message back, anything else is a dead letter."""
    waiting = prepare(pool, raising(ValueError()))
    waiting.request.reject(requeue=requeue)

    assert waiting.message.settlement[0] == settlement


def test_the_first_settlement_stands(pool: TaskPool) -> None:
    """Whatever comes later has no effect."""
    waiting = prepare(pool, raising(ValueError()))
    waiting.request.acknowledge()
    waiting.request.reject(requeue=True)
    waiting.request.return_unrun()
    waiting.request.on_failure(info(ValueError()))

    assert waiting.message.settlement == ("ack",)


def test_inspect_shows_text_and_not_bytes(pool: TaskPool) -> None:
    """`inspect active` travels as JSON."""
    shown = prepare(pool, raising(ValueError()), attempt=2).request.info()

    assert shown["args"] == '{"id": 1}'
    assert shown["attempt"] == 2


def info(error: Exception) -> ExceptionInfo:
    """Return billiard's record of an error."""
    try:
        raise error
    except type(error):
        return ExceptionInfo()
