"""How runs are counted, in each pool that runs in this process, with a real Valkey.

And what becomes of messages that no further run may have: their hook is called, at least once.
"""

# ruff: noqa: ARG001, ARG002 - handlers and hooks take what they are given, used or not

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from celery import exceptions as celery_exceptions
from celery.concurrency.solo import TaskPool as SoloPool
from celery.concurrency.thread import TaskPool as ThreadPool

from convotic_celery.app import ConvoticApp
from convotic_celery.runtime.delivery.attempts import Attempts, RunName
from convotic_celery.runtime.delivery.policy import HandlerPolicy
from convotic_celery.runtime.delivery.settlement import RetryRun
from convotic_celery.runtime.delivery.steps import drive_sync
from convotic_celery.runtime.execution.loop import process_loop
from convotic_celery.runtime.pool.pool import TaskPool
from convotic_celery.sdk.dead_lettered import DeadLettered
from convotic_pubsub.queue import Deliver
from tests.support.valkey import ValkeyOnSocket, run_valkey
from tests.support.waiting import wait_until
from tests.unit.runtime.support import (
    RecordingMessage,
    define,
    make_settings,
    receive,
    request_of,
)
from tests.unit.runtime.test_request import info

POOLS: dict[str, Callable[[], Any]] = {
    "ours": lambda: TaskPool(2),
    "threads": lambda: ThreadPool(2),
    "solo": lambda: SoloPool(1),
}


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyOnSocket]:
    with run_valkey() as server:
        yield server


@contextmanager
def running(pool: Any) -> Iterator[Any]:
    """Start a pool, and end it and what its app has open in the store."""
    pool.start()
    yield pool
    pool.stop()
    store = pool.app.store
    # Where async handlers of the other pools run; that loop goes on.
    process_loop().run(store.aclose())
    store.close()


@pytest.fixture(params=list(POOLS))
def pool(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each pool that runs in this process."""
    with running(POOLS[request.param]()) as pool:
        yield pool


@pytest.fixture
def our_pool() -> Iterator[TaskPool]:
    """The default one."""
    with running(TaskPool(1)) as pool:
        yield pool


class Told:
    """What a hook was called with."""

    def __init__(self) -> None:
        self.dead: list[DeadLettered] = []

    def tell(self, dead: DeadLettered, ctx: Any) -> None:
        """Note it."""
        self.dead.append(dead)

    def fail(self, dead: DeadLettered, ctx: Any) -> None:
        """Note it and raise."""
        self.dead.append(dead)
        raise RuntimeError("the hook failed")


class World:
    """One handler in a pool, with a store; delivers one message again and again."""

    def __init__(self, server: ValkeyOnSocket, pool: Any, handler: Any, **options: Any) -> None:
        settings = make_settings(
            redis_url=server.url, store_key_prefix=f"test-{uuid.uuid4().hex[:8]}:"
        )
        self.definition = define(handler, **{"max_retries": 2, "max_worker_losses": 3, **options})
        self.app = ConvoticApp(settings, [self.definition])
        self.app.set_default()
        self.app.finalize()
        self.pool = pool
        pool.app = self.app
        self.policy = HandlerPolicy(self.definition, self.app.attempts)

    def prepare(self, delivery_attempt: int) -> tuple[Any, RecordingMessage]:
        """Return the request of a delivery that has not begun."""
        decision = self.policy.decide(receive(delivery_attempt=delivery_attempt))
        assert isinstance(decision, Deliver)
        request, message, _ = request_of(self.app, self.definition, self.pool, decision.payload)
        return request, message

    def deliver(self, delivery_attempt: int) -> tuple[Any, ...]:
        """Deliver the message and return its settlement."""
        request, message = self.prepare(delivery_attempt)
        request.execute_using_pool(self.pool)
        wait_until(message.settled.is_set)
        return message.settlement

    def dead_letter(self, delivery_attempt: int) -> dict[str, str]:
        """Deliver it; it must fail: return its attributes, by their last part."""
        kind, attributes = self.deliver(delivery_attempt)
        assert kind == "dead_letter"
        prefix = "convotic-dead-letter-"
        return {name.removeprefix(prefix): value for name, value in attributes.items()}

    def note(self, *, losses: int = 0, failures: int = 0) -> None:
        """Have the store know of earlier runs."""
        for number in range(losses):
            drive_sync(self.app.attempts.begin(self._name(f"lost-{number}")), self.app.keys)
        for number in range(failures):
            last = '["max-retries-exceeded", "ValueError", "no stock"]'
            run = self._name(f"failed-{number}")
            drive_sync(self.app.attempts.end(run, "failure", last), self.app.keys)

    def look(self) -> Attempts:
        """Return what the store knows of the message."""
        name = self._name("look")
        found = wait_until(lambda: drive_sync(self.app.attempts.begin(name), self.app.keys))
        assert found is not None
        drive_sync(self.app.attempts.end(name, "unrun"), self.app.keys)
        return found

    def _name(self, run: str) -> RunName:
        return RunName("orders.new.shop", "m-1", run, 60)


def succeed(message: Any, ctx: Any) -> None:
    """Return."""


def raising(message: Any, ctx: Any) -> None:
    """Fail."""
    raise ValueError("no stock")


def test_deliveries_are_evidence_of_nothing(server: ValkeyOnSocket, pool: Any) -> None:
    """A message that was delivered 50 times without having been run is run as the first time."""
    seen: list[int] = []

    def handler(message: Any, ctx: Any) -> None:
        seen.append(message.attempt)

    world = World(server, pool, handler)

    assert world.deliver(50) == ("ack",)
    assert seen == [1]


def test_failures_are_exact_and_end_in_the_dead_letter(server: ValkeyOnSocket, pool: Any) -> None:
    """Three runs with max_retries=2, whatever Pub/Sub's count says."""
    seen: list[int] = []

    def handler(message: Any, ctx: Any) -> None:
        seen.append(message.attempt)
        raising(message, ctx)

    world = World(server, pool, handler)

    kinds = [world.deliver(attempt)[0] for attempt in (1, 7)]
    attributes = world.dead_letter(7)

    assert kinds == ["lapse", "lapse"]
    assert seen == [1, 2, 3]
    assert (attributes["reason"], attributes["attempts"]) == ("max-retries-exceeded", "3")


def test_a_success_leaves_nothing_behind(server: ValkeyOnSocket, pool: Any) -> None:
    """The counts go with the message."""
    world = World(server, pool, succeed)
    world.note(losses=1, failures=1)

    assert world.deliver(3) == ("ack",)
    assert world.look() == Attempts()


def test_a_first_delivery_asks_the_store_nothing(server: ValkeyOnSocket, pool: Any) -> None:
    """Nor does its success."""
    world = World(server, pool, succeed)
    task: Any = world.app.tasks[world.definition.queue]
    task.execution = replace(task.execution, store=None)

    assert world.deliver(1) == ("ack",)


def test_a_message_is_given_up_for_losses_of_its_own(server: ValkeyOnSocket, pool: Any) -> None:
    """Three runs began and did not end: the next delivery is not run."""
    world = World(server, pool, refuse)
    world.note(losses=3)

    attributes = world.dead_letter(2)

    assert (attributes["reason"], attributes["attempts"]) == ("worker-lost", "3")


def test_a_dead_letter_that_did_not_get_out_says_what_the_last_run_raised(
    server: ValkeyOnSocket, pool: Any
) -> None:
    """Its process died in between; the handler is not called again."""
    world = World(server, pool, refuse)
    world.note(failures=3)

    attributes = world.dead_letter(4)

    assert (attributes["reason"], attributes["attempts"]) == ("max-retries-exceeded", "3")
    assert (attributes["error-type"], attributes["error-message"]) == ("ValueError", "no stock")


def test_what_a_shutdown_returns_has_not_begun(server: ValkeyOnSocket, our_pool: TaskPool) -> None:
    """A run that our own shutdown cancels is no loss."""
    world = World(server, our_pool, refuse)
    request, message = world.prepare(2)
    run = RunName("orders.new.shop", "m-1", request.request_dict["convotic"]["run"], 60)
    drive_sync(world.app.attempts.begin(run), world.app.keys)
    assert world.look().losses == 1

    request.return_unrun()

    assert message.settlement == ("return_unrun",)
    wait_until(lambda: world.look().losses == 0)


@pytest.mark.parametrize(
    ("error", "delay", "failures", "losses"),
    [
        (celery_exceptions.WorkerLostError("killed"), 30.0, 0, 1),
        (celery_exceptions.TimeLimitExceeded(30), 0.0, 1, 0),
    ],
)
def test_what_prefork_sees_of_its_children_is_written_by_the_parent(  # noqa: PLR0917
    server: ValkeyOnSocket,
    our_pool: TaskPool,
    error: Exception,
    delay: float,
    failures: int,
    losses: int,
) -> None:
    """Also on a first delivery, whose begin was not noted; with a hook never the end here."""
    world = World(server, our_pool, refuse, max_retries=0, on_dead_letter=Told().tell)
    request, message = world.prepare(1)
    request.on_failure(info(error))

    assert message.settlement == ("lapse", delay)
    wait_until(lambda: world.look()[:2] == (failures, losses))


async def refuse(message: Any, ctx: Any) -> None:
    """Must not be called."""
    raise AssertionError("the handler was called")


def refuse_plainly(message: Any, ctx: Any) -> None:
    """Must not be called."""
    raise AssertionError("the handler was called")


@pytest.mark.parametrize("handler", [refuse, refuse_plainly])
@pytest.mark.parametrize("hook", ["tell", "fail"])
def test_the_hook_is_told_and_the_handler_is_not_called(
    server: ValkeyOnSocket, pool: Any, handler: Callable[..., Any], hook: str
) -> None:
    """Then the message is dead-lettered with that reason, whatever the hook did."""
    told = Told()
    world = World(server, pool, handler, on_dead_letter=getattr(told, hook))
    world.note(losses=5)

    attributes = world.dead_letter(2)

    (dead,) = told.dead
    assert (dead.reason, dead.attempts, dead.data) == ("worker-lost", 5, b'{"id": 1}')
    assert str(dead.error) == "given up after 5 runs: worker-lost"
    assert (attributes["reason"], attributes["attempts"]) == ("worker-lost", "5")


@pytest.mark.parametrize("failures", [0, 3])
def test_a_hook_that_ends_its_process_has_three_tries(
    server: ValkeyOnSocket, pool: Any, failures: int
) -> None:
    """Then it is dead-lettered without it, for the reason that it failed for."""
    told = Told()
    world = World(server, pool, refuse, on_dead_letter=told.tell)
    world.note(losses=6, failures=failures)

    attributes = world.dead_letter(2)

    assert attributes["reason"] == ("max-retries-exceeded" if failures else "worker-lost")
    assert told.dead == []


def test_a_settlement_that_could_not_be_written_is_written_later(
    server: ValkeyOnSocket, our_pool: TaskPool
) -> None:
    """By the worker's side, from a thread."""
    world = World(server, our_pool, refuse)
    request, message = world.prepare(1)
    request._apply(RetryRun(5.0, recorded=False))

    assert message.settlement == ("lapse", 5.0)
    wait_until(lambda: world.look().failures == 1)
