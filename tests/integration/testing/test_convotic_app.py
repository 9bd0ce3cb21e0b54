"""The kit for module authors: a module's handlers in the test's process, with a clock to move."""

# ruff: noqa: ARG001, ARG002 - handlers and hooks take (message, ctx), used or not

from __future__ import annotations

import asyncio
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from convotic_celery import (
    ConvoticContext,
    ConvoticModule,
    DeadLetter,
    DeadLettered,
    Drop,
    ExponentialBackoff,
    PublishRefused,
    Retry,
    SyncConvoticContext,
    WorkerMessage,
    WorkerMiddleware,
)
from convotic_celery.testing import convotic_app
from tests.support.waiting import PATIENCE


class Book:
    """What handlers write down."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def write(self, line: Any) -> None:
        self.lines.append(line)


def make_module(**options: Any) -> tuple[ConvoticModule, Book]:
    """Return a module with one handler that does what its message says."""
    module, book = ConvoticModule(name="shop", version="1"), Book()

    @module.worker("orders", **options)
    async def handle(message: WorkerMessage[dict[str, Any]], ctx: ConvoticContext) -> None:
        book.write((message.data["do"], ctx.attempt))
        match message.data["do"]:
            case "fail":
                raise ValueError("no")
            case "retry":
                raise Retry(delay=100)
            case "drop":
                raise Drop("not ours")
            case "give up":
                raise DeadLetter("hopeless")
            case "publish":
                await ctx.pubsub.publish("orders", data={"do": "succeed"})

    return module, book


async def test_a_message_is_run() -> None:
    """Published, drained, done; the run says so."""
    module, book = make_module()
    async with convotic_app(module) as app:
        message_id = await app.publish("orders", data={"do": "succeed"})

        (run,) = await app.drain()

    assert (run.handler, run.message_id, run.attempt) == ("orders.shop", message_id, 1)
    assert run.outcome == "succeeded"
    assert book.lines == [("succeed", 1)]


async def test_draining_runs_retries_to_the_dead_letter() -> None:
    """The clock moves from retry to retry: 30 s after each start."""
    module, book = make_module(max_retries=2)
    async with convotic_app(module) as app:
        begun = app.clock.now()
        await app.publish("orders", data={"do": "fail"}, attributes={"source": "test"})

        runs = await app.drain()

        assert [run.outcome for run in runs] == ["retried", "retried", "dead_lettered"]
        # Less what the runs took.
        assert timedelta(seconds=31) < app.clock.now() - begun <= timedelta(seconds=60)
        (dead,) = app.dead_letters
    assert [attempt for _, attempt in book.lines] == [1, 2, 3]
    assert (dead.reason, dead.data) == ("max-retries-exceeded", {"do": "fail"})
    assert dead.attributes == {"source": "test"}
    assert dead.all_attributes["convotic-dead-letter-attempts"] == "3"
    assert isinstance(dead.error, ValueError)


async def test_a_retry_waits_for_the_clock() -> None:
    """It is not due before its delay."""
    module, book = make_module()
    async with convotic_app(module) as app:
        await app.publish("orders", data={"do": "retry"})
        await app.run_due()
        app.clock.advance(99)
        assert await app.run_due() == []

        app.clock.advance(timedelta(seconds=1))

        assert len(await app.run_due()) == 1
    assert [attempt for _, attempt in book.lines] == [1, 2]


@pytest.mark.parametrize(
    ("do", "outcome", "reason"),
    [("drop", "dropped", None), ("give up", "dead_lettered", "rejected")],
)
async def test_outcomes(do: str, outcome: str, reason: str | None) -> None:
    """As a worker's."""
    module, _ = make_module()
    async with convotic_app(module) as app:
        await app.publish("orders", data={"do": do})

        (run,) = await app.drain()

        assert run.outcome == outcome
        assert [dead.reason for dead in app.dead_letters] == ([reason] if reason else [])


async def test_what_a_handler_publishes_is_run_too() -> None:
    """And can be looked at."""
    module, book = make_module()
    async with convotic_app(module) as app:
        await app.publish("orders", data={"do": "publish"})
        await app.drain()

        assert [(seen.topic, seen.data["do"]) for seen in app.published] == [
            ("orders", "publish"),
            ("orders", "succeed"),
        ]
    assert [do for do, _ in book.lines] == ["publish", "succeed"]


async def test_what_a_handler_publishes_carries_its_trace_on() -> None:
    """In either kind of handler; handlers themselves don't see it among the attributes."""
    module, seen = ConvoticModule(name="shop", version="1"), Book()
    trace = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "tracestate": "v=1"}

    @module.worker("topic-a")
    async def pass_on(message: WorkerMessage, ctx: ConvoticContext) -> None:
        await ctx.pubsub.publish("topic-b", data=1)

    @module.worker("topic-b")
    def pass_on_plainly(message: WorkerMessage, ctx: SyncConvoticContext) -> None:
        seen.write(message.attributes)
        ctx.pubsub.publish("topic-c", data=1)

    @module.worker("topic-c")
    async def give_up(message: WorkerMessage, ctx: ConvoticContext) -> None:
        raise DeadLetter("to be looked at")

    async with convotic_app(module) as app:
        await app.publish("topic-a", data=1, attributes=trace)
        await app.drain()
        (dead,) = app.dead_letters

    assert trace.items() <= dead.all_attributes.items()
    assert seen.lines == [{}]


async def test_what_pubsub_refuses_is_refused() -> None:
    """With the rule, as in production."""
    module, _ = make_module()
    async with convotic_app(module) as app:
        with pytest.raises(PublishRefused, match="reserved"):
            await app.publish("orders", data=1, attributes={"convotic-x": "1"})


async def test_what_is_not_json_is_dead_lettered() -> None:
    """Anybody may publish anything."""
    module, book = make_module()
    async with convotic_app(module) as app:
        await app.publish_raw("orders", b"{not json")
        await app.drain()

        (dead,) = app.dead_letters
    assert (dead.reason, dead.data) == ("invalid", b"{not json")
    assert book.lines == []


async def test_a_replay_keeps_the_message_s_id() -> None:
    """ctx.is_replay is true, and attempts are counted from 1."""
    module, seen = ConvoticModule(name="shop", version="1"), Book()

    @module.worker("orders", max_retries=0)
    def handle(message: WorkerMessage, ctx: SyncConvoticContext) -> None:
        seen.write((message.id, ctx.attempt, ctx.is_replay))
        if not ctx.is_replay:
            raise ValueError("once")

    async with convotic_app(module) as app:
        message_id = await app.publish("orders", data=1)
        await app.drain()
        await app.replay(app.dead_letters[0])
        await app.drain()

    assert seen.lines == [(message_id, 1, False), (message_id, 1, True)]


@pytest.mark.parametrize("token", ["", "0" * 32, "\u00e4"])
async def test_a_replay_that_shows_no_token_is_a_message_of_its_own(token: str) -> None:
    """Anybody who may publish can claim the id of a message that is still to come."""
    module, seen = ConvoticModule(name="shop", version="1"), Book()

    @module.worker("orders", deduplicate="message.id")
    def handle(message: WorkerMessage, ctx: SyncConvoticContext) -> None:
        seen.write((message.data, ctx.is_replay))

    async with convotic_app(module) as app:
        claim = {"convotic-message-id": "m-2", "convotic-replay-count": "1"}
        await app.publish_raw("orders", b"1", **claim, **{"convotic-replay-token": token})
        await app.publish("orders", data=2)
        runs = await app.drain()

    assert [run.outcome for run in runs] == ["succeeded", "succeeded"]
    assert [run.message_id for run in runs] == ["m-1", "m-2"]
    assert seen.lines == [(1, False), (2, False)]


async def test_a_token_is_good_for_its_own_message_alone() -> None:
    """And for its handler alone."""
    module, seen = ConvoticModule(name="shop", version="1"), Book()

    @module.worker("orders", max_retries=0)
    def handle(message: WorkerMessage, ctx: SyncConvoticContext) -> None:
        seen.write((message.id, ctx.is_replay))
        raise ValueError("always")

    async with convotic_app(module) as app:
        for number in (1, 2):
            await app.publish("orders", data=number)
        await app.drain()
        one, two = (each.all_attributes["convotic-replay-token"] for each in app.dead_letters)
        claim = {"convotic-message-id": "m-1", "convotic-replay-count": "1"}
        await app.publish_raw("orders", b"3", **claim, **{"convotic-replay-token": two})
        await app.publish_raw("orders", b"4", **claim, **{"convotic-replay-token": one})
        await app.drain()

    assert seen.lines[2:] == [("m-3", False), ("m-1", True)]


async def test_duplicates_are_skipped() -> None:
    """deduplicate= works on the real store, in either kind of handler."""
    module, book = make_module(deduplicate="data.id")
    async with convotic_app(module) as app:
        for _ in range(3):
            await app.publish("orders", data={"do": "succeed", "id": 7})

        runs = await app.drain()

    assert [run.outcome for run in runs] == ["succeeded", "duplicate", "duplicate"]
    assert len(book.lines) == 1


async def test_a_failed_key_is_retried() -> None:
    """Only a success is remembered."""
    module, book = make_module(deduplicate="message.id", max_retries=1)
    async with convotic_app(module) as app:
        await app.publish("orders", data={"do": "fail"})

        runs = await app.drain()

    assert [run.outcome for run in runs] == ["retried", "dead_lettered"]
    assert [attempt for _, attempt in book.lines] == [1, 2]


async def test_only_some_errors_are_worth_a_retry() -> None:
    """retry_on names them, no_retry_on excludes some."""
    module, _ = make_module(retry_on=[LookupError, "OSError"])
    async with convotic_app(module) as app:
        await app.publish("orders", data={"do": "fail"})
        await app.publish("orders", data={"do": "retry"})
        app.clock.advance(1)

        runs = await app.run_due()

        assert [run.outcome for run in runs] == ["dead_lettered", "retried"]
        assert app.dead_letters[0].reason == "rejected"


async def test_old_messages_expire() -> None:
    """Acknowledged unrun, by the clock."""
    module, book = make_module(max_message_age=60)
    async with convotic_app(module) as app:
        await app.publish("orders", data={"do": "succeed"})
        app.clock.advance(61)

        (run,) = await app.drain()

    assert run.outcome == "expired"
    assert book.lines == []


async def test_the_dead_letter_hook_is_called() -> None:
    """Once, for the last run, with a context; its own failure changes nothing."""
    told: list[DeadLettered] = []

    async def tell(dead: DeadLettered, ctx: ConvoticContext) -> None:
        await ctx.storage.set("last", dead.message_id)
        told.append(dead)
        raise RuntimeError("the hook fails")

    module, _ = make_module(max_retries=1, on_dead_letter=tell)
    async with convotic_app(module) as app:
        message_id = await app.publish("orders", data={"do": "fail"})
        await app.drain()

        assert await app.ctx.storage.get("last") == message_id
        assert len(app.dead_letters) == 1
    (dead,) = told
    assert (dead.reason, dead.attempts, str(dead.error)) == ("max-retries-exceeded", 2, "no")


class Odd(BaseException):
    """An error that is no Exception."""


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
@pytest.mark.parametrize(
    "raised", [asyncio.CancelledError, GeneratorExit, SystemExit, KeyboardInterrupt, Odd]
)
async def test_whatever_a_dead_letter_hook_raises_changes_nothing(
    raised: type[BaseException], is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; the message is a dead letter for the reason that it was."""
    module = ConvoticModule(name="shop", version="1")

    async def tell(dead: DeadLettered, ctx: ConvoticContext) -> None:
        raise raised

    def tell_plainly(dead: DeadLettered, ctx: SyncConvoticContext) -> None:
        raise raised

    async def fail(message: WorkerMessage, ctx: ConvoticContext) -> None:
        raise ValueError("no")

    def fail_plainly(message: WorkerMessage, ctx: SyncConvoticContext) -> None:
        raise ValueError("no")

    module.worker("orders", max_retries=0, on_dead_letter=tell if is_async else tell_plainly)(
        fail if is_async else fail_plainly
    )
    async with convotic_app(module) as app:
        await app.publish("orders", data=1)
        await app.drain()

        assert [dead.reason for dead in app.dead_letters] == ["max-retries-exceeded"]
    assert "on_dead_letter of orders.shop failed" in caplog.text


class Noting(WorkerMiddleware):
    """Writes down what it sees."""

    def __init__(self, name: str, book: Book) -> None:
        self._name, self._book = name, book

    async def before(self, message: WorkerMessage[Any], ctx: Any) -> None:
        self._book.write(f"{self._name} before")

    async def after(self, message: WorkerMessage[Any], ctx: Any) -> None:
        self._book.write(f"{self._name} after")

    def on_error(self, message: WorkerMessage[Any], ctx: Any, error: Exception) -> None:
        self._book.write(f"{self._name} {type(error).__name__}")


class Telling(WorkerMiddleware):
    """Writes down errors, with what they say; its hook is plain."""

    def __init__(self, name: str, book: Book) -> None:
        self._name, self._book = name, book

    def on_error(self, message: WorkerMessage[Any], ctx: Any, error: Exception) -> None:
        self._book.write(f"{self._name} {type(error).__name__}: {error}")


async def test_middleware_surrounds_the_handler() -> None:
    """In order before, in reverse after and on an error; also of an outcome."""
    module, book = make_module()
    module.use(Noting("outer", book))
    module.use(Noting("inner", book))
    async with convotic_app(module) as app:
        await app.publish("orders", data={"do": "succeed"})
        await app.publish("orders", data={"do": "drop"})
        await app.drain()

    before = ["outer before", "inner before"]
    assert book.lines == [
        *before,
        ("succeed", 1),
        "inner after",
        "outer after",
        *before,
        ("drop", 1),
        "inner Drop",
        "outer Drop",
    ]


class Replacing(WorkerMiddleware):
    """Makes another error of one."""

    def on_error(self, message: WorkerMessage[Any], ctx: Any, error: Exception) -> None:
        raise Drop("not ours") from error


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_a_hook_that_raises_replaces_the_error_for_those_around_it(is_async: bool) -> None:
    """They are told all the same: an outer one may hold something for the run."""
    module, book = ConvoticModule(name="shop", version="1"), Book()

    async def fail(message: WorkerMessage, ctx: ConvoticContext) -> None:
        raise ValueError("no")

    def fail_plainly(message: WorkerMessage, ctx: SyncConvoticContext) -> None:
        raise ValueError("no")

    module.worker("orders")(fail if is_async else fail_plainly)
    module.use(Telling("outer", book))
    module.use(Replacing())
    module.use(Telling("inner", book))
    async with convotic_app(module) as app:
        await app.publish("orders", data=1)
        (run,) = await app.drain()

    assert run.outcome == "dropped"
    assert book.lines == ["inner ValueError: no", "outer Drop: not ours"]


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_hooks_are_told_of_an_exit(raised: type[BaseException], is_async: bool) -> None:
    """The run fails as one that raised an Exception."""
    module, book = ConvoticModule(name="shop", version="1"), Book()

    async def leave(message: WorkerMessage, ctx: ConvoticContext) -> None:
        raise raised(3)

    def leave_plainly(message: WorkerMessage, ctx: SyncConvoticContext) -> None:
        raise raised(3)

    module.worker("orders", max_retries=0)(leave if is_async else leave_plainly)
    module.use(Telling("hook", book))
    async with convotic_app(module) as app:
        await app.publish("orders", data=1)
        (run,) = await app.drain()

    assert run.outcome == "dead_lettered"
    assert book.lines == [f"hook HandlerExited: the handler raised {raised.__name__}(3)"]


async def test_a_hook_that_takes_too_long_changes_no_outcome(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is stopped and named; the run ends as its handler said."""
    module = ConvoticModule(name="shop", version="1")

    @module.worker("orders", deadline_grace=1)
    async def handle(message: WorkerMessage, ctx: ConvoticContext) -> None:
        raise Drop("not ours")

    class Hanging(WorkerMiddleware):
        async def on_error(self, message: WorkerMessage[Any], ctx: Any, error: Exception) -> None:
            await asyncio.get_running_loop().create_future()

    module.use(Hanging())
    async with convotic_app(module) as app:
        await app.publish("orders", data=1)
        (run,) = await app.drain()

    assert run.outcome == "dropped"
    assert "orders.shop: on_error was stopped" in caplog.text


@pytest.mark.parametrize(
    ("is_async", "told"),
    [
        (True, "HandlerCancelled: the handler awaited something that was cancelled"),
        (False, "HandlerExited: the handler raised asyncio.exceptions.CancelledError()"),
    ],
    ids=["async", "plain"],
)
async def test_a_handler_that_cancels_itself_has_failed(is_async: bool, told: str) -> None:
    """It awaited something that was cancelled; nobody stopped it. Hooks are told."""
    module, book = ConvoticModule(name="shop", version="1"), Book()

    async def wait() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def handle(message: WorkerMessage, ctx: ConvoticContext) -> None:
        await wait()

    def handle_plainly(message: WorkerMessage, ctx: SyncConvoticContext) -> None:
        asyncio.run(wait())

    module.worker("orders", max_retries=0)(handle if is_async else handle_plainly)
    module.use(Telling("hook", book))
    async with convotic_app(module) as app:
        await app.publish("orders", data=1)
        await app.drain()

        assert [dead.reason for dead in app.dead_letters] == ["max-retries-exceeded"]
    assert book.lines == [f"hook {told}"]


class Unlucky(BaseModel):
    """A payload whose validator has a fault."""

    text: str

    @field_validator("text")
    @classmethod
    def find(cls, text: str) -> str:
        return next(iter(()), None) or next(iter(text[:0]))


@pytest.mark.parametrize("size", [1, 1_000_000])
async def test_a_validator_that_raises_stop_iteration_fails_its_message(size: int) -> None:
    """Also of large data, which is decoded in a thread: no future can hold that error."""
    module = ConvoticModule(name="shop", version="1")

    @module.worker("orders", max_retries=0)
    async def handle(message: WorkerMessage[Unlucky], ctx: ConvoticContext) -> None:
        """Not reached."""

    async with convotic_app(module) as app:
        await app.publish("orders", data={"text": "x" * size})
        async with asyncio.timeout(PATIENCE):
            (run,) = await app.drain()

        assert run.outcome == "dead_lettered"
        assert "StopIteration" in str(app.dead_letters[0].error)


async def test_the_clock_begins_where_it_is_told() -> None:
    """published_at is its time; back-offs are exact."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    module, _ = make_module(
        max_retries=2, backoff=ExponentialBackoff(initial=10, factor=3, jitter=0)
    )
    async with convotic_app(module, now=now) as app:
        await app.publish("orders", data={"do": "fail"})
        await app.drain()

        assert app.clock.now() == now + timedelta(seconds=40)


async def test_a_handler_may_extend_its_deadline() -> None:
    """As in a worker; there is no lease to keep."""
    module, left = ConvoticModule(name="shop", version="1"), Book()

    @module.worker("topic-a", ack_deadline=10)
    async def handle(message: WorkerMessage, ctx: ConvoticContext) -> None:
        ctx.extend_ack_deadline(100)
        left.write(ctx.time_left)

    async with convotic_app(module) as app:
        await app.publish("topic-a", data=1)
        (run,) = await app.drain()

    assert run.outcome == "succeeded"
    assert 10 < left.lines[0] <= 100


async def test_apps_don_t_see_each_other() -> None:
    """Keys in the store are each test's own, and gone at the end."""
    module, _ = make_module()
    async with convotic_app(module) as one, convotic_app(module) as other:
        await one.ctx.storage.set("key", 1)
        assert await other.ctx.storage.get("key") is None
        client = one.app.store.async_client()
        prefix = one.app.settings.store_key_prefix
        assert [key async for key in client.scan_iter(match=f"{prefix}*")]

    async with convotic_app(module) as third:
        client = third.app.store.async_client()
        assert [key async for key in client.scan_iter(match=f"{prefix}*")] == []


async def test_it_takes_milliseconds() -> None:
    """A hundred messages through a handler that uses the store: none waits for a real timer."""
    module = ConvoticModule(name="shop", version="1")

    @module.worker("topic-a")
    async def handle(message: WorkerMessage[int], ctx: ConvoticContext) -> None:
        await ctx.storage.set(f"{message.data}", 1)

    async with convotic_app(module) as app:
        for number in range(100):
            await app.publish("topic-a", data=number)

        async with asyncio.timeout(50):  # a busy machine takes a second or two
            runs = await app.drain()

    assert len(runs) == 100


async def test_a_forgotten_await_is_told() -> None:
    """Of a handler, when it has run; of the test, at the end of the block. Others stay warnings."""
    module = ConvoticModule(name="shop", version="1")

    @module.worker("orders")
    async def forgets(message: WorkerMessage, ctx: ConvoticContext) -> None:
        ctx.contacts.create(external_id="c-1")  # type: ignore[unused-coroutine]  # the point

    async with convotic_app(module) as app:
        await app.publish("orders", data={})
        with pytest.raises(AssertionError, match=r"await is missing.*convotic_app\.py:\d+: corou"):
            await app.drain()
    with pytest.raises(AssertionError, match=r"'AppUnderTest\.publish' was never awaited"):
        async with convotic_app(module) as app:
            app.publish("orders", data={})  # type: ignore[unused-coroutine]  # the point
    with pytest.warns(UserWarning, match="of another kind"):
        async with convotic_app(module):
            warnings.warn("of another kind", stacklevel=1)
