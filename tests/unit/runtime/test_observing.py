"""What observers of runs are told, and that they cost no message."""

# ruff: noqa: ARG001, ARG002 - handlers take (message, ctx), used or not

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from convotic_celery.runtime.delivery.observing import (
    MessageSettled,
    MessageTaken,
    Observers,
    RunBegan,
    RunObserver,
    observers,
)
from convotic_celery.runtime.delivery.policy import HandlerPolicy
from convotic_celery.runtime.delivery.settlement import Ack, Fail, RetryRun, ReturnUnrun
from tests.support.waiting import wait_until
from tests.unit.runtime.support import (
    PUBLISHED_AT,
    define,
    make_app,
    make_request,
    receive,
)


class Recorder(RunObserver):
    """Keeps the events that it gets."""

    def __init__(self) -> None:
        self.taken: list[MessageTaken] = []
        self.began: list[RunBegan] = []
        self.settled: list[MessageSettled] = []

    def message_taken(self, event: MessageTaken) -> None:
        self.taken.append(event)

    def run_began(self, event: RunBegan) -> None:
        self.began.append(event)

    def message_settled(self, event: MessageSettled) -> None:
        self.settled.append(event)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """An observer of this process's runs."""
    recorder = Recorder()
    observers.add(recorder)
    try:
        yield recorder
    finally:
        observers.remove(recorder)


def run(pool: Any, handler: Any, *, attempt: int = 1, **options: Any) -> None:
    """Run a handler once."""
    definition = define(handler, **options)
    app = make_app(definition)
    pool.app = app
    request, *_ = make_request(app, definition, pool, receive(delivery_attempt=3), attempt=attempt)
    request.execute_using_pool(pool)


def test_a_run_is_reported_from_its_begin_to_its_end(any_pool: Any, recorder: Recorder) -> None:
    """Began and settled carry one message object, with its times and its outcome."""

    async def handler(message: Any, ctx: Any) -> None:
        """Succeed."""

    run(any_pool, handler)

    wait_until(lambda: recorder.settled)
    began, settled = recorder.began[0], recorder.settled[0]
    assert began.message is settled.message
    assert (settled.message.handler, settled.message.message_id) == ("orders.new.shop", "m-1")
    assert settled.message.published_at == PUBLISHED_AT
    assert settled.message.delivery_attempt == 3
    assert settled.settlement == Ack("succeeded")
    assert settled.duration_seconds is not None
    assert settled.duration_seconds == settled.at - began.at
    assert settled.queue_seconds == pytest.approx(began.at - PUBLISHED_AT.timestamp(), abs=0.01)
    assert (settled.error, settled.traceback, settled.next_at) == (None, "", None)


def test_a_failed_run_says_why_and_when_the_next_one_is(any_pool: Any, recorder: Recorder) -> None:
    """The error, its traceback, the attempt and the next time."""

    async def handler(message: Any, ctx: Any) -> None:
        raise ValueError("out of stock")

    run(any_pool, handler, attempt=2, ack_deadline=30)

    wait_until(lambda: recorder.settled)
    settled = recorder.settled[0]
    assert isinstance(settled.settlement, RetryRun)
    assert settled.attempt == 2
    assert settled.next_at is not None
    assert recorder.began[0].at + 30 <= settled.next_at + 0.01
    assert settled.next_at <= settled.at + 30
    assert "out of stock" in repr(settled.error)
    assert 'raise ValueError("out of stock")' in settled.traceback


def test_a_dead_letter_is_reported_with_its_attributes(any_pool: Any, recorder: Recorder) -> None:
    """They are those that the dead letter has."""

    async def handler(message: Any, ctx: Any) -> None:
        raise ValueError("out of stock")

    run(any_pool, handler, attempt=3, max_retries=2)

    wait_until(lambda: recorder.settled)
    settled = recorder.settled[0]
    assert isinstance(settled.settlement, Fail)
    assert settled.attempt == 3
    assert settled.dead_letter is not None
    assert settled.dead_letter["convotic-dead-letter-reason"] == "max-retries-exceeded"
    assert settled.dead_letter["convotic-dead-letter-error-message"] == "out of stock"


def test_a_message_returned_unrun_has_no_run(any_pool: Any, recorder: Recorder) -> None:
    """It was given back at a shutdown."""
    definition = define()
    request, *_ = make_request(make_app(definition), definition, any_pool)

    request.return_unrun()

    (settled,) = recorder.settled
    assert settled.settlement == ReturnUnrun()
    assert (settled.began_at, settled.duration_seconds) == (None, None)


def test_a_message_that_is_skipped_on_arrival_is_reported(recorder: Recorder) -> None:
    """It expired, or is meant for another handler: no worker takes it."""
    policy = HandlerPolicy(
        define(max_message_age=60), None, now=lambda: PUBLISHED_AT + timedelta(seconds=61)
    )

    policy.decide(receive(message_id="old"))
    policy.decide(receive(message_id="other", attributes={"convotic-target": "another"}))

    found = [(event.message.message_id, event.settlement) for event in recorder.settled]
    assert found == [("old", Ack("expired")), ("other", Ack("other_target"))]


def test_an_observer_that_raises_disturbs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once; the others get the event all the same."""

    class Broken(RunObserver):
        def message_taken(self, event: MessageTaken) -> None:
            raise RuntimeError("no disk")

    mine, recorder = Observers(), Recorder()
    mine.add(Broken())
    mine.add(recorder)
    message: Any = "a message"
    event = MessageTaken(message, 0.0)

    mine.report(mine.taken, event)
    mine.report(mine.taken, event)

    assert recorder.taken == [event, event]
    assert [record.exc_info is not None for record in caplog.records] == [True]
    assert "Broken.message_taken failed" in caplog.text


def test_nobody_listens_to_what_no_observer_overrides() -> None:
    """So an event without listeners is not made."""

    class Ends(RunObserver):
        def message_settled(self, event: MessageSettled) -> None:
            """Hear of ends only."""

    mine, ends = Observers(), Ends()
    mine.add(ends)
    mine.add(ends)
    assert (len(mine.taken), len(mine.began), len(mine.settled)) == (0, 0, 1)

    mine.remove(ends)
    assert not mine.settled
