"""The same handlers in each of Celery's pools: a real worker, the embedded broker and store."""

from __future__ import annotations

import itertools

import pytest

from tests.acceptance.stage import Stage
from tests.support.waiting import PATIENCE, wait_until

#: A worker's arguments for each pool; the last is the default.
POOLS = {
    "solo": ("-P", "solo"),
    "threads": ("-P", "threads", "-c", "3"),
    "prefork": ("-P", "prefork", "-c", "2"),
    "default": (),
}
REASON = "convotic-dead-letter-reason"
ATTEMPTS = "convotic-dead-letter-attempts"


@pytest.fixture(params=list(POOLS))
def pool(request: pytest.FixtureRequest) -> str:
    """The name of a pool."""
    name: str = request.param
    return name


def test_every_outcome_in_every_pool(stage: Stage, pool: str) -> None:
    """Success of both kinds of handlers, invalid data, retry, ack deadline, dead letters."""
    with stage.worker(*POOLS[pool]) as worker:
        for number in range(5):
            stage.publish_json(number, topic="probe.async")
            stage.publish_json(number, topic="probe.plain")
        stage.publish(b"not json", topic="probe.async")
        stage.publish_json("no", topic="probe.failing")
        stage.publish_json("stuck", topic="probe.endless")

        wait_until(lambda: len(stage.read_runs("async")) == 5)
        wait_until(lambda: len(stage.read_runs("plain")) == 5)
        invalid = stage.pull_dead_letter(queue="probe.async.probe")
        failed = stage.pull_dead_letter(queue="probe.failing.probe")
        stuck = stage.pull_dead_letter(queue="probe.endless.probe")

    log = worker.read_log()
    assert invalid.attributes[REASON] == "invalid"
    assert failed.attributes[REASON] == "max-retries-exceeded"
    assert failed.attributes[ATTEMPTS] == stuck.attributes[ATTEMPTS] == "2"
    assert [run["attempt"] for run in stage.read_runs("failing")] == [1, 2]
    assert stuck.attributes[REASON] == "ack-deadline-exceeded"
    assert [run["attempt"] for run in stage.read_runs("endless")] == [1, 2]
    assert "Unrecoverable" not in log, log
    assert "Warm shutdown" in log


@pytest.mark.parametrize(
    ("name", "async_thread", "plain_thread"),
    [
        ("solo", "convotic-handlers", "MainThread"),
        ("threads", "convotic-handlers", "ThreadPoolExecutor"),
        ("prefork", "convotic-handlers", "MainThread"),
        ("default", "convotic-pool", "convotic-thread"),
    ],
)
def test_the_pool_is_the_one_that_was_asked_for(
    stage: Stage, name: str, async_thread: str, plain_thread: str
) -> None:
    """An explicit -P prefork is prefork, and the request is right in both kinds of handlers."""
    with stage.worker(*POOLS[name], CONVOTIC_LOG_FORMAT="celery") as worker:
        stage.publish_json(1, topic="probe.async")
        stage.publish_json(1, topic="probe.plain")
        (ran_async,) = wait_until(lambda: stage.read_runs("async"))
        (ran_plain,) = wait_until(lambda: stage.read_runs("plain"))

    log = worker.read_log()
    assert ran_async["thread"].startswith(async_thread)
    assert ran_plain["thread"].startswith(plain_thread)
    in_child = f"Task probe.plain.probe[{ran_plain['task']}] succeeded" in log
    assert in_child, log
    assert f"Task probe.async.probe[{ran_async['task']}] succeeded" in log


def test_prefork_stops_a_blocking_handler(stage: Stage) -> None:
    """A plain handler past its ack deadline is interrupted in its child, with a clean outcome."""
    with stage.worker(*POOLS["prefork"]):
        stage.publish_json(1, topic="probe.blocking")
        dead_letter = stage.pull_dead_letter(queue="probe.blocking.probe")
        stage.publish_json(2, topic="probe.plain")
        wait_until(lambda: stage.read_runs("plain"))

    assert dead_letter.attributes[REASON] == "ack-deadline-exceeded"


@pytest.mark.crash(
    7,
    "a child of prefork, while the handler runs",
    lost="nothing",
    repeated="what the handler had done so far",
)
def test_a_child_that_dies_is_a_loss(stage: Stage) -> None:
    """It ends after max_worker_losses, not after max_retries; the worker goes on."""
    with stage.worker(*POOLS["prefork"]):
        stage.publish_json(1, topic="probe.dying")
        dead_letter = stage.pull_dead_letter(queue="probe.dying.probe")
        stage.publish_json(2, topic="probe.plain")
        wait_until(lambda: stage.read_runs("plain"))

    runs = stage.read_runs("dying")
    assert dead_letter.attributes[REASON] == "worker-lost"
    assert dead_letter.attributes[ATTEMPTS] == "2"
    assert [run["attempt"] for run in runs] == [1, 1]
    assert runs[0]["pid"] != runs[1]["pid"]


def test_a_running_handler_ends_before_a_warm_stop(stage: Stage, pool: str) -> None:
    """SIGTERM: what runs finishes and is acknowledged; it is not delivered again."""
    with stage.worker(*POOLS[pool]) as worker:
        stage.publish_json(2, topic="probe.slow")
        wait_until(lambda: stage.read_runs("slow"))
        worker.child.terminate()
        assert worker.child.wait(PATIENCE) == 0

    assert len(stage.read_runs("slow-end")) == 1
    with stage.worker():
        stage.publish_json(1, topic="probe.async")
        wait_until(lambda: stage.read_runs("async"))
    assert len(stage.read_runs("slow")) == 1


def test_what_has_not_begun_goes_to_another_worker(stage: Stage) -> None:
    """At SIGTERM waiting messages are given back at once, and cost no attempt."""
    with stage.worker("-n", "first@%h") as first:
        stage.publish_json(*(3 + number / 10 for number in range(6)), topic="probe.slow")
        wait_until(lambda: len(stage.read_runs("slow")) == 2)
        with stage.worker("-n", "second@%h"):
            first.child.terminate()
            wait_until(lambda: len(stage.read_runs("slow-end")) == 6)

    assert {run["attempt"] for run in stage.read_runs("slow")} == {1}
    assert len(stage.read_runs("slow")) == 6


def test_handlers_wait_at_once(stage: Stage) -> None:
    """concurrency=2: two coroutines of one handler overlap; the third waits for a place."""
    with stage.worker():
        stage.publish_json(*(1 + number / 100 for number in range(4)), topic="probe.slow")
        wait_until(lambda: len(stage.read_runs("slow-end")) == 4)

    starts = sorted(run["at"] for run in stage.read_runs("slow"))
    ends = sorted(run["at"] for run in stage.read_runs("slow-end"))
    running = max(
        sum(start <= moment for start in starts) - sum(end < moment for end in ends)
        for moment in itertools.chain(starts, ends)
    )
    assert running == 2
