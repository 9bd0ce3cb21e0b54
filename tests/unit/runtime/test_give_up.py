"""Messages that no run decided on: their hook is told in a run of its own, at least once."""

# ruff: noqa: ARG001, ARG002 - handlers and hooks take what they are given, used or not

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import exceptions as celery_exceptions
from celery.concurrency.solo import TaskPool as SoloPool
from celery.concurrency.thread import TaskPool as ThreadPool

from convotic_celery.runtime.pool.pool import TaskPool
from convotic_celery.sdk.dead_lettered import DeadLettered
from tests.support.waiting import wait_until
from tests.unit.runtime.support import RecordingMessage, define, make_app, make_request
from tests.unit.runtime.test_request import info

POOLS: dict[str, Callable[[], Any]] = {
    "ours": lambda: TaskPool(2),
    "threads": lambda: ThreadPool(2),
    "solo": lambda: SoloPool(1),
}


@pytest.fixture(params=list(POOLS))
def pool(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each pool that runs in this process."""
    pool = POOLS[request.param]()
    pool.start()
    yield pool
    pool.stop()


class Told:
    """What a hook was told."""

    def __init__(self) -> None:
        self.dead: list[DeadLettered] = []

    def tell(self, dead: DeadLettered, ctx: Any) -> None:
        """Note it."""
        self.dead.append(dead)

    def fail(self, dead: DeadLettered, ctx: Any) -> None:
        """Note it and raise."""
        self.dead.append(dead)
        raise RuntimeError("the hook failed")


async def refuse(message: Any, ctx: Any) -> None:
    """Must not be called."""
    raise AssertionError("the handler was called")


def refuse_plainly(message: Any, ctx: Any) -> None:
    """Must not be called."""
    raise AssertionError("the handler was called")


def prepare(
    pool: Any, handler: Callable[..., Any], hook: Any, **request: Any
) -> tuple[Any, RecordingMessage, list[str]]:
    """Return a request that has not begun, its message, and its events."""
    definition = define(handler, max_retries=2, max_worker_losses=3, on_dead_letter=hook)
    app = make_app(definition)
    pool.app = app
    made, message, eventer = make_request(app, definition, pool, **request)
    return made, message, eventer.kinds


@pytest.mark.parametrize("handler", [refuse, refuse_plainly])
@pytest.mark.parametrize("hook", ["tell", "fail"])
def test_the_hook_is_told_and_the_handler_is_not_called(
    pool: Any, handler: Callable[..., Any], hook: str
) -> None:
    """Then the message is dead-lettered with that reason, whatever the hook did."""
    told = Told()
    request, message, _ = prepare(
        pool, handler, getattr(told, hook), attempt=5, give_up="worker-lost"
    )
    request.execute_using_pool(pool)
    wait_until(message.settled.is_set)

    kind, attributes = message.settlement
    (dead,) = told.dead
    assert (dead.reason, dead.attempts, dead.data) == ("worker-lost", 5, b'{"id": 1}')
    assert str(dead.error) == "given up after 5 deliveries: worker-lost"
    assert kind == "dead_letter"
    assert attributes["convotic-dead-letter-reason"] == "worker-lost"
    assert attributes["convotic-dead-letter-attempts"] == "5"


@pytest.fixture
def our_pool() -> Iterator[TaskPool]:
    """The default one."""
    pool = TaskPool(1)
    pool.start()
    yield pool
    pool.stop()


@pytest.mark.parametrize(
    ("error", "given", "settlement"),
    [
        (celery_exceptions.WorkerLostError("killed"), {"losses": 2}, ("lapse", 30.0, False)),
        (celery_exceptions.TimeLimitExceeded(30), {"attempt": 3}, ("lapse", 0.0, True)),
    ],
)
def test_with_a_hook_the_last_run_s_end_is_not_the_end(
    our_pool: TaskPool, error: Exception, given: dict[str, int], settlement: tuple[Any, ...]
) -> None:
    """A child that died, or was killed at its hard limit: the next delivery is for the hook."""
    request, message, _ = prepare(our_pool, refuse, Told().tell, **given)
    request.on_failure(info(error))

    assert message.settlement == settlement


@pytest.mark.parametrize(
    "error",
    [celery_exceptions.WorkerLostError("killed"), celery_exceptions.TimeLimitExceeded(30)],
)
def test_a_hook_that_ends_its_process_has_three_tries(our_pool: TaskPool, error: Exception) -> None:
    """Then it is dead-lettered without it, for the reason that it was given up for."""
    request, message, _ = prepare(
        our_pool, refuse, Told().tell, losses=5, attempt=6, give_up="worker-lost"
    )
    request.on_failure(info(error))

    kind, attributes = message.settlement
    assert kind == "dead_letter"
    assert attributes["convotic-dead-letter-reason"] == "worker-lost"
