"""Which pool a worker gets, and what it says at its start."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import pytest
from celery.bin.celery import celery as celery_command
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.concurrency.solo import TaskPool as SoloPool

from convotic_celery.app import ConvoticApp
from convotic_celery.runtime.pool.pool import TaskPool
from convotic_celery.runtime.pool.thread_pool import ThreadPool
from convotic_celery.runtime.worker.banner import describe_modules, handler_table, list_tasks
from convotic_celery.runtime.worker.worker import choose_pool, describe_options
from tests.unit.runtime.support import define, make_app

pytestmark = pytest.mark.filterwarnings("ignore::celery.exceptions.SecurityWarning")


@contextmanager
def command_line(app: ConvoticApp, *arguments: str) -> Iterator[click.Context]:
    """Parse Celery's own worker command, as `celery -A … worker ARGUMENTS` does."""
    command = celery_command.commands["worker"]
    parent = click.Context(celery_command, obj=type("Obj", (), {"app": app})())
    with command.make_context("worker", [*arguments], parent=parent) as context:
        yield context


@pytest.mark.parametrize(
    ("arguments", "pool"),
    [
        ((), TaskPool),
        (("-P", "prefork"), PreforkPool),
        (("-P", "processes"), PreforkPool),
        (("--pool=solo",), SoloPool),
        (("-P", "threads"), ThreadPool),
    ],
)
def test_the_command_line_chooses_the_pool(arguments: tuple[str, ...], pool: type[Any]) -> None:
    """Ours by default; an explicit prefork is prefork, which Celery itself would make ours."""
    app = make_app(define())
    with command_line(app, *arguments) as context:
        assert choose_pool(context.params["pool"]) is pool


def test_a_pool_chosen_in_code_is_taken() -> None:
    """app.Worker(pool="prefork") has no command line."""
    assert choose_pool("prefork") is PreforkPool
    assert choose_pool("convotic_celery.runtime.pool.pool:TaskPool") is TaskPool


def make_worker(app: ConvoticApp, **options: Any) -> Any:
    """Return an app's worker that has not started."""
    return app.Worker(quiet=True, use_eventloop=False, **options)


def test_our_pool_is_as_large_as_the_handlers_want() -> None:
    """The sum of concurrency, and no common prefetch limit."""
    app = make_app(define(concurrency=8), define(module="crm", concurrency=3))
    worker = make_worker(app)

    assert (worker.concurrency, worker.prefetch_multiplier) == (11, 0)
    queues = app.conf.broker_transport_options["queues"]
    assert queues["orders.new.shop"].concurrency == 8


@pytest.mark.parametrize("pool", [None, "threads", "prefork"])
def test_c_bounds_each_handler_and_all_together(pool: str | None) -> None:
    """Also ours, if somebody asks for it."""
    app = make_app(define(concurrency=8))
    worker = make_worker(app, concurrency=2, pool=pool)

    assert (worker.concurrency, worker.prefetch_multiplier) == (2, 1)
    assert app.conf.broker_transport_options["queues"]["orders.new.shop"].concurrency == 2


def test_solo_runs_one() -> None:
    """Whatever the number of processors."""
    app = make_app(define(concurrency=8))

    assert make_worker(app, pool="solo").concurrency == 1
    assert app.conf.broker_transport_options["queues"]["orders.new.shop"].concurrency == 1


def test_prefork_spawns_and_has_time_limits() -> None:
    """gRPC does not survive a fork; a child is stopped at the ack deadline."""

    def plain(message: Any, ctx: Any) -> None:
        """Succeed."""

    app = make_app(define(plain, ack_deadline=20), define(module="crm", ack_deadline=40))
    worker = make_worker(app, pool="prefork", concurrency=1, pool_start_method="fork")

    assert worker.pool_start_method == "spawn"
    plain_task, async_task = app.tasks["orders.new.shop"], app.tasks["orders.new.crm"]
    assert (plain_task.soft_time_limit, plain_task.time_limit) == (20, 25)
    assert (async_task.soft_time_limit, async_task.time_limit) == (None, 45)


def test_an_unknown_queue_is_an_error_of_the_command_line() -> None:
    """With the names there are."""
    app = make_app(define())

    with pytest.raises(click.UsageError, match=r"orders\.nwe.*orders\.new\.shop"):
        make_worker(app, queues=["orders.nwe"])


def test_the_table_names_handler_options_and_dead_letter_topic() -> None:
    """One line a handler."""
    table = handler_table([define(max_retries=3, ack_deadline=60, concurrency=10)])

    assert re.split("  +", table.splitlines()[-1].strip()) == [
        "orders.new.shop",
        "10",
        "3",
        "60 s",
        "orders.new.shop.dead-letter",
    ]


def test_only_the_user_s_ordinary_tasks_are_listed() -> None:
    """Not Celery's, not the framework's, and no handler a second time."""
    names = ["shop.mail", "celery.chord", "convotic.workflow.end_step", "orders.new.shop"]

    assert list_tasks(names, [define()]) == ("shop.mail",)


def test_a_module_is_described_once() -> None:
    """With its version and its file, however many handlers it has."""
    first, second = define(), define()

    (line,) = describe_modules([first, second])
    assert line.startswith(f"shop {first.module_version}  ")
    assert line.endswith(".py")


def test_without_handlers_the_table_says_where_modules_are_looked_for() -> None:
    """An empty worker is usually a mistake."""
    assert "CONVOTIC_MODULES" in handler_table([])


def test_with_handlers_and_none_consumed_the_table_says_so() -> None:
    """`-Q celery` leaves the handlers out; that is not the same as having none."""
    table = handler_table([define()], selected=["celery"])

    assert "-Q" in table
    assert "orders.new.shop" in handler_table([define()], selected=["orders.new.shop"])


def test_transport_options_are_shown_without_secrets() -> None:
    """`inspect stats` is JSON, and every monitor reads it."""
    options = {"queues": {"b": 1, "a": 2}, "provision": "create", "credentials": object()}

    assert describe_options(options) == {"provision": "create", "queues": ["a", "b"]}
