"""The worker as a process: pools, stops, and refusals at its start."""

from __future__ import annotations

import os
import signal

import pytest

from tests.acceptance.stage import QUEUE, TOPIC, Stage
from tests.conftest import end_servers
from tests.support.waiting import PATIENCE, never, wait_until


def test_it_prints_what_it_consumes(embedded_stage: Stage) -> None:
    """At its start the worker shows queue, options and dead-letter topic of each handler."""
    with embedded_stage.worker(CONVOTIC_LOG_FORMAT="text") as worker:
        log = worker.read_log()

    assert TOPIC in log
    assert QUEUE in log
    assert f"{QUEUE}.dead-letter" in log


@pytest.mark.parametrize("pool", ["default", "solo", "threads", "prefork"])
def test_every_pool_runs_async_and_plain_handlers(embedded_stage: Stage, pool: str) -> None:
    """Both kinds of handlers work in our pool and in Celery's own."""
    arguments = () if pool == "default" else ("-P", pool, "-c", "1" if pool == "solo" else "2")
    with embedded_stage.worker(*arguments):
        embedded_stage.publish_json({"id": "async"})
        embedded_stage.publish_json({"id": "plain"}, topic="custom.orders.plain")

        wait_until(lambda: len(embedded_stage.read_runs("end")) == 2)


@pytest.mark.crash(6, "the worker, on SIGTERM", lost="nothing", repeated="nothing")
@pytest.mark.parametrize("pool", ["default", "threads", "prefork"])
def test_sigterm_finishes_what_runs_and_leaves(embedded_stage: Stage, pool: str) -> None:
    """On SIGTERM the running handler ends, its message is acknowledged, the exit code is 0."""
    arguments = () if pool == "default" else ("-P", pool, "-c", "2")
    with embedded_stage.worker(*arguments) as worker:
        embedded_stage.publish_json({"id": "slow", "slow": 2})
        wait_until(embedded_stage.read_runs)

        worker.child.terminate()

        assert worker.child.wait(PATIENCE) == 0
        assert len(embedded_stage.read_runs("end")) == 1

    with embedded_stage.worker():
        embedded_stage.publish_json({"id": "next"})
        wait_until(lambda: len(embedded_stage.read_runs("end")) == 2)
    assert [run["data"]["id"] for run in embedded_stage.read_runs()] == ["slow", "next"]


@pytest.mark.parametrize("pool", ["default", "solo", "threads", "prefork"])
def test_sigterm_hands_back_what_has_not_started(embedded_stage: Stage, pool: str) -> None:
    """What waited in a stopped worker is at once delivered to the next, without a lost attempt."""
    arguments = () if pool == "default" else ("-P", pool, "-c", "1")
    with embedded_stage.worker(*arguments) as worker:
        # Together: the first one still runs when the worker is stopped.
        embedded_stage.publish_json({"id": 0, "slow": 6}, {"id": 1}, {"id": 2})
        wait_until(embedded_stage.read_runs)
        worker.child.terminate()
        assert worker.child.wait(PATIENCE) == 0
    assert [run["data"]["id"] for run in embedded_stage.read_runs()] == [0]

    with embedded_stage.worker():
        wait_until(lambda: len(embedded_stage.read_runs("end")) == 3)

    assert sorted(run["data"]["id"] for run in embedded_stage.read_runs()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import nothing_of_that_name\n", "nothing_of_that_name"),
        ("x = (\n", "SyntaxError"),
        (
            """\
from convotic_celery import ConvoticModule
module = ConvoticModule(name='broken', version='1')
@module.worker('custom.orders.new')
async def handle(message): ...
""",
            "broken.py:3",
        ),
    ],
)
def test_a_broken_module_stops_the_worker(
    embedded_stage: Stage, source: str, expected: str
) -> None:
    """A module that can't be loaded stops the worker with one error that names file and cause."""
    (embedded_stage.folder / "modules" / "broken.py").write_text(source)

    with embedded_stage.worker(ready=False) as worker:
        assert worker.child.wait(PATIENCE) != 0

    log = worker.read_log()
    assert "broken.py" in log
    assert expected in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("K_SERVICE", "shop"),
        ("CONVOTIC_ENV", "production"),
    ],
)
def test_the_embedded_servers_are_refused_where_they_would_lose_data(
    embedded_stage: Stage, name: str, value: str
) -> None:
    """In production a worker without URLs does not start, and says which variables are missing."""
    with embedded_stage.worker(ready=False, **{name: value}) as worker:
        assert worker.child.wait(PATIENCE) != 0

    log = worker.read_log()
    assert "CONVOTIC_BROKER_URL" in log
    assert "CONVOTIC_REDIS_URL" in log
    assert "Traceback" not in log
    assert list(embedded_stage.data_dir.iterdir()) == []


def test_it_starts_without_any_configuration(embedded_stage: Stage) -> None:
    """`celery -A convotic_celery worker` needs neither a setting nor a running server."""
    del embedded_stage.environment["CONVOTIC_DATA_DIR"]
    default = embedded_stage.folder / ".convotic"
    embedded_stage.data_dir = default
    try:
        with embedded_stage.worker():
            embedded_stage.publish_json({"id": 1})
            wait_until(lambda: embedded_stage.read_runs("end"))
    finally:
        end_servers(default)


#: A handler that can't be stopped by its cancellation.
_STUBBORN = """
import asyncio
from convotic_celery import ConvoticModule

module = ConvoticModule(name="stubborn", version="1.0.0")


@module.worker("custom.stubborn", ack_deadline=600)
async def refuse_to_stop(message, ctx):
    print("it runs", flush=True)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("it does not stop", flush=True)
"""


@pytest.mark.parametrize(
    ("pool", "orders"),
    [
        ("default", ["SIGTERM", "SIGTERM"]),
        ("default", ["SIGQUIT"]),
        ("solo", ["SIGTERM", "SIGTERM"]),
        ("solo", ["SIGQUIT"]),
        ("threads", ["SIGTERM", "SIGTERM"]),
        ("threads", ["SIGQUIT"]),
        ("prefork", ["SIGTERM", "SIGTERM"]),
        ("prefork", ["SIGQUIT"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_coroutine_that_swallows_its_cancellation_keeps_no_worker(
    embedded_stage: Stage, pool: str, orders: list[str]
) -> None:
    """SIGQUIT ends the worker nevertheless, as does a second signal; the message is returned."""
    (embedded_stage.folder / "modules" / "stubborn.py").write_text(_STUBBORN)
    arguments = () if pool == "default" else ("-P", pool, "-c", "1")
    *first, last = (signal.Signals[name] for name in orders)
    with embedded_stage.worker(*arguments) as worker:
        embedded_stage.publish_json({}, topic="custom.stubborn")
        wait_until(lambda: "it runs" in worker.read_log())
        for number in first:
            os.kill(worker.child._process.pid, number)
            wait_until(lambda: "Warm shutdown" in worker.read_log())
            never(lambda: not worker.child.is_running, for_=1.5)
        os.kill(worker.child._process.pid, last)

        assert worker.child.wait(PATIENCE) is not None
        log = worker.read_log()

    assert "Unrecoverable" not in log
    assert "NotImplementedError" not in log
    assert embedded_stage.pull("custom.stubborn.stubborn") is not None
