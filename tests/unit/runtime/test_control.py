"""How long a run may go on, and who may change that."""

# ruff: noqa: ARG001 - handlers take (message, ctx), used or not

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from convotic_celery.context.delivery import RouteCall
from convotic_celery.errors import AckDeadlineExceeded, DeadlineNotExtendable
from convotic_celery.runtime.delivery.payload import PayloadBuilder
from convotic_celery.runtime.delivery.settlement import Deferred
from convotic_celery.runtime.delivery.steps import drive_async
from convotic_celery.runtime.execution.attempt import run_handler
from convotic_celery.runtime.execution.current_run import CURRENT_RUN, Run
from convotic_celery.runtime.execution.deadline import RunDeadline, hold_lease
from convotic_celery.runtime.execution.invoke import Execution, build_message
from tests.support.waiting import PATIENCE
from tests.unit.runtime.support import define, forever, make_app, receive


class Lease:
    """Stands for the worker: notes how long the lease is to be held."""

    def __init__(self, *, is_here: bool = True) -> None:
        self.held: list[float] = []
        self._is_here = is_here

    def __call__(self, seconds: float) -> bool:
        self.held.append(seconds)
        return self._is_here


def make_control(limit: float = 30.0, **values: Any) -> tuple[RunDeadline, Lease]:
    lease = Lease()
    return RunDeadline(limit, lease, **values), lease


def test_extending_moves_the_end_and_holds_the_lease() -> None:
    """Counted from now, as Pub/Sub does."""
    control, lease = make_control()

    before = time.monotonic()
    control.extend(100)
    after = time.monotonic()

    assert before + 100 <= control.ends_at <= after + 100
    assert control.time_left <= 100
    assert lease.held == [100]


def test_extending_never_shortens() -> None:
    """Who asks for less than there is keeps what there is."""
    control, lease = make_control(30)
    ends_at = control.ends_at

    control.extend(5)

    assert control.ends_at == ends_at
    assert lease.held == []


@pytest.mark.parametrize("seconds", [0, -1, 61, float("nan")])
def test_an_extension_has_a_bound(seconds: float) -> None:
    """max_lease_duration bounds the whole run."""
    control, lease = make_control(30, bound_seconds=60)

    with pytest.raises(ValueError, match="at most 60 seconds"):
        control.extend(seconds)
    assert lease.held == []


def test_a_prefork_child_is_told_what_to_do() -> None:
    """Its parent holds the lease and stops it."""
    control = RunDeadline(30, Lease(is_here=False))

    with pytest.raises(DeadlineNotExtendable, match="max_lease_duration"):
        control.extend(60)
    assert control.time_left <= 30


def test_the_lease_of_an_unknown_task_is_not_held() -> None:
    """As in a prefork child: the worker's requests are not there."""
    assert hold_lease("no-such-task", 10) is False


def run(handler: Any, control: RunDeadline) -> None:
    asyncio.run(run_async(handler, control))


async def run_async(handler: Any, control: RunDeadline) -> None:
    await prepare(handler)(control)


def prepare(handler: Any) -> Callable[[RunDeadline], Awaitable[object]]:
    """Return what runs a handler: making an app takes longer than some deadlines here."""
    definition = define(handler)
    app = make_app(definition)
    builder = PayloadBuilder.for_queue(definition.queue, definition.subscription)
    facts = builder.build(receive(), attempt=1)["headers"]["convotic"]
    message = build_message(definition, b"1", facts)
    execution = Execution(definition, app.services, app.keys)
    return lambda control: drive_async(run_handler(execution, message, facts, control), execution)


def test_an_extended_run_is_not_stopped_at_its_first_deadline() -> None:
    """The coroutine goes on beyond it; ctx says how much is left."""
    left: list[float] = []

    async def handler(message: Any, ctx: Any) -> None:
        ctx.extend_ack_deadline(600)
        await asyncio.sleep(0.1)
        left.append(ctx.time_left)

    control, _ = make_control(0.05)

    run(handler, control)

    assert control.ends_at - time.monotonic() <= left[0] < 600


def test_a_run_is_stopped_at_its_deadline() -> None:
    """The error says how much it had."""

    async def handler(message: Any, ctx: Any) -> None:
        await forever()

    control, _ = make_control(0.05)

    with pytest.raises(AckDeadlineExceeded, match=r"0\.05 seconds"):
        run(handler, control)


def test_each_run_is_stopped_at_its_own_deadline() -> None:
    """Not before it, whichever others began earlier or later, were extended or have ended."""
    stopped: list[str] = []

    async def returns(message: Any, ctx: Any) -> None:
        await asyncio.sleep(0)

    async def waits(message: Any, ctx: Any) -> None:
        await forever()

    async def extends(message: Any, ctx: Any) -> None:
        ctx.extend_ack_deadline(1.0)
        await forever()

    handlers = {
        "ended": prepare(returns),
        "next": prepare(waits),
        "extended": prepare(extends),
        "before its turn": prepare(waits),
        "shorter": prepare(waits),
        "longer": prepare(waits),
    }

    async def one(name: str, control: RunDeadline) -> None:
        try:
            await handlers[name](control)
        except AckDeadlineExceeded:
            assert time.monotonic() >= control.ends_at
            stopped.append(name)

    async def several() -> None:
        older, _ = make_control(0.6)
        await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(
                one("ended", make_control(0.6)[0]),
                one("next", make_control(0.6)[0]),
                one("extended", make_control(0.6)[0]),
                one("before its turn", older),
                one("shorter", make_control(0.2)[0]),
                one("longer", make_control(0.8)[0]),
            )

    asyncio.run(several())

    assert sorted(stopped) == ["before its turn", "extended", "longer", "next", "shorter"]


def test_the_error_shows_where_the_handler_stood() -> None:
    """The line on which it waited is in the printed traceback."""

    async def wait_here() -> None:
        await forever()

    async def handler(message: Any, ctx: Any) -> None:
        async with asyncio.timeout(PATIENCE):  # does not take the deadline for its own
            await wait_here()

    control, _ = make_control(0.05)

    with pytest.raises(AckDeadlineExceeded) as stopped:
        run(handler, control)
    assert "wait_here" in "".join(traceback.format_exception(stopped.value))


def test_what_a_stopped_handler_makes_of_it_counts() -> None:
    """One that returns has succeeded, one that raises has failed with that; both can still wait."""

    async def cleans_up(message: Any, ctx: Any) -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    async def explains(message: Any, ctx: Any) -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise LookupError("no answer") from None

    async def both() -> None:
        await run_async(cleans_up, make_control(0.05)[0])
        with pytest.raises(LookupError, match="no answer"):
            await run_async(explains, make_control(0.05)[0])
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        await asyncio.sleep(0)

    asyncio.run(both())


def test_who_cancels_a_run_while_its_deadline_stops_it_is_not_taken_for_the_deadline() -> None:
    """The pool stops it: that is no failure of the handler."""

    async def handler(message: Any, ctx: Any) -> None:
        try:
            await forever()
        finally:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # as the pool does
            await forever()

    async def stopped() -> None:
        pools = Run()
        pools.stop_reason = "terminated"
        CURRENT_RUN.set(pools)
        task = asyncio.create_task(run_async(handler, make_control(0.05)[0]))
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.cancelled()

    asyncio.run(stopped())


def test_a_run_that_loses_its_key_while_it_waits_is_stopped() -> None:
    """Its keeper notices on another thread."""
    control, _ = make_control(30.0)

    async def handler(message: Any, ctx: Any) -> None:
        await asyncio.to_thread(control.lose)
        await forever()

    with pytest.raises(Deferred):
        run(handler, control)


def test_a_run_that_lost_its_key_before_it_first_waits_is_stopped_there() -> None:
    """Its keeper may notice while the handler computes, before there is a timer to move."""
    control, _ = make_control(30.0)

    async def handler(message: Any, ctx: Any) -> None:
        control.lose()
        await forever()

    with pytest.raises(Deferred):
        run(handler, control)


def test_what_a_handler_sees_and_returns_to_is_its_own_coroutine() -> None:
    """Task groups, timeouts and errors of awaited things work across the handler's waits."""
    seen: list[Any] = []

    async def handler(message: Any, ctx: Any) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await forever()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.sleep(0, "slept"))
        future = asyncio.get_running_loop().create_future()
        future.set_exception(LookupError("asked for"))
        with pytest.raises(LookupError):
            await future
        seen.append(task.result())
        raise TimeoutError("the handler's own")

    control, _ = make_control(30.0)

    with pytest.raises(TimeoutError, match="own"):
        run(handler, control)
    assert seen == ["slept"]


def test_a_route_has_no_deadline() -> None:
    """ctx.time_left is infinite, and extending says why it can't."""
    ctx = make_app().services.sync_context(RouteCall(handler="GET /", message_id="1"))

    assert ctx.time_left == float("inf")
    with pytest.raises(DeadlineNotExtendable, match="no message is running"):
        ctx.extend_ack_deadline(10)
