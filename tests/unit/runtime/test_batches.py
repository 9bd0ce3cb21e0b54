"""A handler that takes many messages at once: each settled by itself, in the pools that can."""

# ruff: noqa: ARG001, ARG002 - handlers take (messages, ctx), used or not

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.thread import TaskPool as ThreadPool
from celery.worker import state

from convotic_celery import BatchFailed, BatchOptions, Drop, Retry
from convotic_celery.errors import HandlerSignatureError, ModuleError
from convotic_celery.runtime.delivery.settlement import Deferred
from convotic_celery.runtime.execution.batches import Batches, _Batch, _Gatherer
from convotic_celery.runtime.execution.deadline import RunDeadline
from convotic_celery.runtime.execution.invoke import explain_deadline
from convotic_celery.runtime.pool.pool import TaskPool
from convotic_celery.sdk.message import WorkerMessage
from convotic_celery.sdk.middleware import WorkerMiddleware
from convotic_celery.sdk.options import WorkerOptions
from tests.support.waiting import PATIENCE, never, wait_until
from tests.unit.runtime.support import (
    RecordingMessage,
    define,
    forever,
    make_app,
    make_request,
    receive,
)

Messages = list[WorkerMessage[Any]]


@pytest.fixture(params=["ours", "threads"])
def many(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each pool that has many messages in one process."""
    pool: Any = TaskPool(8) if request.param == "ours" else ThreadPool(8)
    pool.start()
    yield pool
    pool.stop()


def run(
    pool: Any,
    handler: Callable[..., Any],
    count: int,
    *,
    attempt: int = 1,
    when_given: Callable[[], object] = bool,
    **options: Any,
) -> list[RecordingMessage]:
    """Give a batch handler so many messages and wait for their settlements."""
    defaults: dict[str, Any] = {"batch": BatchOptions(max_size=count, max_wait=10)}
    options = defaults | options
    definition = define(handler, **options)
    app = make_app(definition)
    pool.app = app
    messages = []
    for number in range(count):
        received = receive(b'{"n": %d}' % number, message_id=f"m-{number}")
        request, message, _ = make_request(app, definition, pool, received, attempt=attempt)
        state.requests[request.id] = request  # who holds its lease
        messages.append(message)
        request.execute_using_pool(pool)
    when_given()
    for message in messages:
        wait_until(message.settled.is_set)
    return messages


def start(app: Any, definition: Any, pool: Any, number: int) -> RecordingMessage:
    """Give a batch handler one message."""
    request, message, _ = make_request(
        app, definition, pool, receive(message_id=f"m-{number}"), attempt=1
    )
    state.requests[request.id] = request  # who holds its lease
    request.execute_using_pool(pool)
    return message


def kinds(messages: list[RecordingMessage]) -> list[str]:
    return [message.settlement[0] for message in messages]


def test_one_call_gets_all_and_each_is_acknowledged(many: Any) -> None:
    """A full batch is called at once; when it returns, each message is acknowledged."""
    calls: list[list[int]] = []

    async def handler(messages: Messages, ctx: Any) -> None:
        calls.append(sorted(message.data["n"] for message in messages))

    settled = run(many, handler, 5)

    assert calls == [[0, 1, 2, 3, 4]]
    assert kinds(settled) == ["ack"] * 5


def test_a_plain_handler_runs_in_a_thread(many: Any) -> None:
    """A plain def may block: its batch is not called on the event loop."""
    threads: list[str] = []

    def handler(messages: Messages, ctx: Any) -> None:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        threads.append(threading.current_thread().name)

    assert kinds(run(many, handler, 3)) == ["ack"] * 3
    assert len(threads) == 1


def test_named_failures_fail_alone(many: Any) -> None:
    """BatchFailed names what failed, each with its own outcome; the others succeeded."""

    async def handler(messages: Messages, ctx: Any) -> None:
        by_number = {message.data["n"]: message for message in messages}
        raise BatchFailed(
            [
                (by_number[1], ValueError("bad")),
                (by_number[2], Drop("not ours")),
                (by_number[3], Retry(delay=77)),
            ]
        )

    settled = run(many, handler, 5)

    assert kinds(settled) == ["ack", "lapse", "ack", "lapse", "ack"]
    assert settled[3].settlement[1] == 77


def test_any_other_error_fails_them_all(many: Any) -> None:
    """Without names the whole batch has failed, and each message counts its own attempts."""

    async def handler(messages: Messages, ctx: Any) -> None:
        raise ValueError("the database said no")

    settled = run(many, handler, 3, attempt=6)

    assert kinds(settled) == ["dead_letter"] * 3
    for message in settled:
        assert message.settlement[1]["convotic-dead-letter-error-message"] == "the database said no"
        assert message.settlement[1]["convotic-dead-letter-attempts"] == "6"


class Refused(Exception):
    """An exception that can't be made of its args."""

    def __init__(self, *, code: int) -> None:
        super().__init__("refused", code)
        self.code = code


def test_an_error_that_can_not_be_copied_is_each_messages_own(pool: TaskPool) -> None:
    """What its class wants to be made with is not asked again."""

    async def handler(messages: Messages, ctx: Any) -> None:
        raise Refused(code=7)

    settled = run(pool, handler, 3, attempt=6)

    for message in settled:
        assert message.settlement[1]["convotic-dead-letter-error-type"].endswith("Refused")


def test_a_failure_of_a_stranger_fails_them_all(many: Any) -> None:
    """BatchFailed with an id that is not in the batch is a mistake: nothing counts as a success."""

    async def handler(messages: Messages, ctx: Any) -> None:
        raise BatchFailed({"nobody": ValueError("bad")})

    settled = run(many, handler, 2, attempt=6)

    assert kinds(settled) == ["dead_letter"] * 2
    text = settled[0].settlement[1]["convotic-dead-letter-error-message"]
    assert text == "BatchFailed names nobody, not in this batch"


def test_a_batch_is_stopped_at_the_ack_deadline(pool: TaskPool) -> None:
    """Each of its messages has exceeded its deadline."""

    async def handler(messages: Messages, ctx: Any) -> None:
        await forever()

    settled = run(pool, handler, 2, attempt=6, ack_deadline=1)

    assert kinds(settled) == ["dead_letter"] * 2
    reasons = {m.settlement[1]["convotic-dead-letter-reason"] for m in settled}
    assert reasons == {"ack-deadline-exceeded"}


def test_a_plain_batch_past_its_deadline_is_waited_for(pool: TaskPool) -> None:
    """Nothing stops its thread: what it does counts, and its slot is taken until it ends."""
    begun, go_on = threading.Semaphore(0), threading.Event()
    sizes: list[int] = []

    def handler(messages: Messages, ctx: Any) -> None:
        sizes.append(len(messages))
        begun.release()
        assert go_on.wait(PATIENCE)

    batch = BatchOptions(max_size=2, max_wait=10)
    definition = define(handler, batch=batch, ack_deadline=1, deadline_grace=0, max_retries=0)
    app = make_app(definition)
    pool.app = app
    messages = [start(app, definition, pool, number) for number in range(2)]
    assert begun.acquire(timeout=PATIENCE)
    task: Any = app.tasks[definition.queue]
    wait_until(lambda: task.execution.batches.overdue == 1)
    waiting = [start(app, definition, pool, number) for number in (2, 3)]
    for message in waiting:  # for another worker: no slot may ever be free again
        wait_until(message.settled.is_set)
    assert not any(message.settlements for message in messages)

    go_on.set()
    for message in messages:
        wait_until(message.settled.is_set)

    assert kinds(messages) == ["ack", "ack"]
    assert kinds(waiting) == ["defer", "defer"]
    assert sizes == [2]
    wait_until(lambda: task.execution.batches.overdue == 0)


def test_a_plain_batch_with_more_time_is_not_overdue(pool: TaskPool) -> None:
    """ctx.extend_ack_deadline() holds its slot, too."""
    extended, go_on = threading.Event(), threading.Event()

    def handler(messages: Messages, ctx: Any) -> None:
        ctx.extend_ack_deadline(500)
        extended.set()
        assert go_on.wait(PATIENCE)

    batch = BatchOptions(max_size=1, max_wait=10)
    definition = define(handler, batch=batch, ack_deadline=1, deadline_grace=0)
    app = make_app(definition)
    pool.app = app
    message = start(app, definition, pool, 0)
    assert extended.wait(PATIENCE)
    task: Any = app.tasks[definition.queue]

    never(lambda: task.execution.batches.overdue, for_=1.2)
    go_on.set()
    wait_until(message.settled.is_set)

    assert kinds([message]) == ["ack"]


def test_a_plain_batch_whose_runs_are_stopped_keeps_its_slot(pool: TaskPool) -> None:
    """Until its thread ends; then the next batch is called."""
    begun, go_on = threading.Semaphore(0), threading.Event()
    at_once: list[int] = []

    def handler(messages: Messages, ctx: Any) -> None:
        at_once.append(1)
        begun.release()
        assert go_on.wait(PATIENCE)
        at_once.append(-1)

    definition = define(handler, batch=BatchOptions(max_size=1, max_wait=10))
    app = make_app(definition)
    pool.app = app
    request, stopped, _ = make_request(app, definition, pool, receive(message_id="m-0"))
    request.execute_using_pool(pool)
    assert begun.acquire(timeout=PATIENCE)
    request.terminate(pool)
    wait_until(stopped.settled.is_set)
    following = start(app, definition, pool, 1)
    assert not begun.acquire(timeout=0.2)

    go_on.set()
    wait_until(following.settled.is_set)

    assert kinds([following]) == ["ack"]
    assert at_once == [1, -1, 1, -1]


def test_as_many_plain_batches_run_at_once_as_its_concurrency(pool: TaskPool) -> None:
    """More than the event loop has threads for asyncio.to_thread."""
    count = min(32, (os.cpu_count() or 1) + 4) + 4
    together = threading.Barrier(count)

    def handler(messages: Messages, ctx: Any) -> None:
        together.wait(PATIENCE)

    settled = run(
        pool, handler, count, batch=BatchOptions(max_size=1, max_wait=10), concurrency=count
    )

    assert kinds(settled) == ["ack"] * count


def test_a_plain_batch_fails_with_stop_iteration_at_once(many: Any) -> None:
    """No future can hold it: its runs would wait for their deadline."""

    def handler(messages: Messages, ctx: Any) -> None:
        next(iter([]))

    settled = run(many, handler, 2, attempt=6)

    assert kinds(settled) == ["dead_letter"] * 2
    text = settled[0].settlement[1]["convotic-dead-letter-error-message"]
    assert text == "the call raised StopIteration"


def test_an_extension_holds_the_lease_of_each_message(pool: TaskPool) -> None:
    """ctx.extend_ack_deadline() of a batch is for all of its messages."""

    async def handler(messages: Messages, ctx: Any) -> None:
        ctx.extend_ack_deadline(500)

    settled = run(pool, handler, 3)

    assert kinds(settled) == ["ack"] * 3
    assert all(message.held_seconds == 510 for message in settled)


def test_what_does_not_fill_a_batch_waits_only_so_long(pool: TaskPool) -> None:
    """After max_wait a batch is called with what there is."""
    sizes: list[int] = []

    async def handler(messages: Messages, ctx: Any) -> None:
        sizes.append(len(messages))

    settled = run(pool, handler, 3, batch=BatchOptions(max_size=100, max_wait=0.05))

    assert kinds(settled) == ["ack"] * 3
    assert sum(sizes) == 3


def test_no_more_batches_at_a_time_than_its_concurrency(pool: TaskPool) -> None:
    """What comes while all are running makes up the next batch."""
    running, most, sizes = 0, 0, []
    go_on = threading.Event()

    async def handler(messages: Messages, ctx: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        sizes.append(len(messages))
        await asyncio.to_thread(go_on.wait, PATIENCE)
        running -= 1

    options: dict[str, Any] = {"batch": BatchOptions(max_size=10, max_wait=0), "concurrency": 2}
    settled = run(pool, handler, 40, when_given=go_on.set, **options)

    assert kinds(settled) == ["ack"] * 40
    assert most == 2
    assert max(sizes) == 10


def test_a_stopped_run_leaves_its_batch_to_the_others(pool: TaskPool) -> None:
    """A revoked message takes nothing from those it is called with."""
    begun, go_on = threading.Event(), threading.Event()

    async def handler(messages: Messages, ctx: Any) -> None:
        begun.set()
        await asyncio.to_thread(go_on.wait)

    definition = define(handler, batch=BatchOptions(max_size=2, max_wait=10))
    app = make_app(definition)
    pool.app = app
    pairs = [
        make_request(app, definition, pool, receive(message_id=f"m-{number}"))
        for number in range(2)
    ]
    for request, *_ in pairs:
        request.execute_using_pool(pool)
    wait_until(begun.is_set)
    pairs[0][0].terminate(pool)
    wait_until(pairs[0][1].settled.is_set)
    assert not pairs[1][1].settlements
    go_on.set()
    wait_until(pairs[1][1].settled.is_set)

    assert kinds([pairs[1][1]]) == ["ack"]


def test_hooks_see_each_message(pool: TaskPool) -> None:
    """Middleware is around each message's run, and sees its own error."""
    seen: list[tuple[str, int]] = []

    class Watching(WorkerMiddleware):
        async def before(self, message: WorkerMessage[Any], ctx: Any) -> None:
            seen.append(("before", message.data["n"]))

        async def on_error(self, message: WorkerMessage[Any], ctx: Any, error: Exception) -> None:
            seen.append((type(error).__name__, message.data["n"]))

    async def handler(messages: Messages, ctx: Any) -> None:
        raise BatchFailed([(m, KeyError("k")) for m in messages if m.data["n"] == 1])

    definition = define(handler, batch=BatchOptions(max_size=2, max_wait=10))
    object.__setattr__(definition, "middleware", (Watching(),))
    app = make_app(definition)
    pool.app = app
    made = []
    for number in range(2):
        received = receive(b'{"n": %d}' % number, message_id=f"m-{number}")
        request, message, _ = make_request(app, definition, pool, received)
        made.append(message)
        request.execute_using_pool(pool)
    for message in made:
        wait_until(message.settled.is_set)

    assert sorted(seen) == [("KeyError", 1), ("before", 0), ("before", 1)]


# -- what is refused ------------------------------------------------------------------------------


async def takes_one(message: WorkerMessage[int], ctx: Any) -> None:
    """Take a message."""


async def takes_many(messages: list[WorkerMessage[int]], ctx: Any) -> None:
    """Take a batch."""


def test_the_annotation_and_the_option_belong_together() -> None:
    """A list without the option, and the option without a list, are errors at registration."""
    with pytest.raises(HandlerSignatureError, match="To take many messages at once, set the"):
        define(takes_many)
    with pytest.raises(HandlerSignatureError, match="is a list of messages, but is annotated"):
        define(takes_one, batch=BatchOptions())
    assert define(takes_many, batch=BatchOptions()).payload_type is int


def test_settings_do_not_make_a_handler_take_batches() -> None:
    """Its code is written for one or the other."""
    with pytest.raises(ModuleError, match="decided where it is defined"):
        define(takes_one).with_options(WorkerOptions(batch=BatchOptions()))
    changed = define(takes_many, batch=BatchOptions()).with_options(
        WorkerOptions(batch=BatchOptions(max_size=7))
    )
    assert changed.options.slots == 7


def test_batch_failed_checks_what_it_is_given() -> None:
    """What names nothing, or no errors, is a mistake that shows at once."""
    with pytest.raises(ValueError, match="without a failure"):
        BatchFailed({})
    with pytest.raises(TypeError, match="each with its exception, not str with str"):
        BatchFailed({"m-1": "bad"})  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("is_early", [True, False])
async def test_a_lost_key_of_one_message_stops_the_batch(*, is_early: bool) -> None:
    """Before the batch begins or while it runs; its messages are deferred, not failed."""
    shared, one, other = (RunDeadline(60, lambda _: True) for _ in range(3))

    async def call() -> None:
        shared.start()
        try:
            for each in (one, other):
                each.follow(shared)
            await forever()
        except asyncio.CancelledError as error:
            raise explain_deadline(define(), shared, error) from None

    if is_early:
        one.lose()
    running = asyncio.create_task(call())
    await asyncio.sleep(0)
    if not is_early:
        one.lose()

    with pytest.raises(Deferred, match="another run has taken its key"):
        await running
    assert not other.is_lost


async def test_a_run_that_is_deferred_and_stopped_at_once_is_stopped() -> None:
    """It waits no more when its cancellation arrives."""

    def handler(messages: Messages, ctx: Any) -> None: ...

    definition = define(handler, batch=BatchOptions(max_size=2, max_wait=10))
    execution: Any = SimpleNamespace(definition=definition)
    step: Any = SimpleNamespace(deadline=RunDeadline(60, lambda _: True))
    gatherer = _Gatherer(Batches(), execution, asyncio.get_running_loop())
    waiting = asyncio.ensure_future(gatherer.call(step))
    await asyncio.sleep(0)
    stuck = _Batch([], deadline=RunDeadline(-60, lambda _: True))
    gatherer._running.add(stuck)

    gatherer._keep_leases()
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
