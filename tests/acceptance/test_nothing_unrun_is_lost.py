"""A message that was never run is never dead-lettered for an outage of ours: real workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from convotic_celery.cli.demo.producer import make_subscriber
from tests.acceptance.stage import Stage, make_stage
from tests.support.valkey import ValkeyOnSocket, run_valkey
from tests.support.waiting import PATIENCE, never, wait_until

MODULE = """
import asyncio
import json
import os
import resource
from pathlib import Path

from convotic_celery import ConvoticModule, WorkerMessage

module = ConvoticModule(name="probe", version="1.0.0")
RECORD = Path(os.environ["CONVOTIC_TEST_RECORD"])


def record(message: WorkerMessage, what: str) -> None:
    with RECORD.open("a") as file:
        line = {"what": what, "data": message.data, "attempt": message.attempt}
        file.write(json.dumps(line) + "\\n")


@module.worker("probe.keyed", ack_deadline=5, concurrency=5, deduplicate="message.id")
async def run_keyed(message: WorkerMessage, ctx) -> None:
    record(message, "keyed")


@module.worker("probe.failing", ack_deadline=1, max_retries=3, max_worker_losses=1)
async def fail(message: WorkerMessage, ctx) -> None:
    record(message, "failing")
    raise ValueError("always")


@module.worker("probe.hoarding", ack_deadline=60)
async def hoard(message: WorkerMessage, ctx) -> None:
    record(message, "hoarding")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # As if it had them all: what others close meanwhile can't be opened by anybody else.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    while not RECORD.with_name("enough").exists():
        await asyncio.sleep(0.1)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@module.worker("probe.opening", ack_deadline=2, max_retries=0, concurrency=2)
async def open_a_file(message: WorkerMessage, ctx) -> None:
    record(message, "opening")


@module.worker("probe.calm", ack_deadline=5, max_worker_losses=1)
async def run_calmly(message: WorkerMessage, ctx) -> None:
    record(message, "calm")
"""


@pytest.fixture
def server() -> Iterator[ValkeyOnSocket]:
    """A store of the test's own, which it may break."""
    with run_valkey() as server:
        yield server


@pytest.fixture
def admin(server: ValkeyOnSocket) -> Iterator[Any]:
    """Its administrator."""
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def stage(tmp_path: Path, data_dir: Path, server: ValkeyOnSocket) -> Stage:
    """A folder with the module above."""
    made = make_stage(tmp_path, data_dir, None)
    (tmp_path / "modules" / "probe.py").write_text(MODULE)
    made.environment["CONVOTIC_REDIS_URL"] = server.url
    return made


@pytest.mark.parametrize("how", ["READONLY", "OOM"])
def test_handlers_with_a_key_wait_for_a_store_that_answers_with_errors(
    stage: Stage, admin: Any, how: str
) -> None:
    """None runs meanwhile, none is dead-lettered, all run once when it serves again."""
    with stage.worker():
        if how == "READONLY":
            admin.replicaof("127.0.0.1", 1)
        else:
            admin.config_set("maxmemory", "1")
        stage.publish_json(*range(10), topic="probe.keyed")
        never(lambda: stage.read_runs("keyed"), for_=15)
        admin.replicaof("NO", "ONE")
        admin.config_set("maxmemory", "0")
        wait_until(lambda: len(stage.read_runs("keyed")) >= 10)

        assert sorted(run["data"] for run in stage.read_runs("keyed")) == list(range(10))
        assert not stage.has_message("probe.keyed.probe.dead-letter")


@pytest.mark.crash(
    11, "the broker or the store is unavailable for a while", lost="nothing", repeated="perhaps"
)
def test_failures_of_an_outage_are_failures_and_no_losses(stage: Stage, admin: Any) -> None:
    """Four runs with max_retries=3, half of them while the store refuses writes."""
    with stage.worker():
        admin.replicaof("127.0.0.1", 1)
        stage.publish_json(7, topic="probe.failing")
        wait_until(lambda: len(stage.read_runs("failing")) >= 2)
        admin.replicaof("NO", "ONE")
        dead = stage.pull_dead_letter(queue="probe.failing.probe")

    assert dead.attributes["convotic-dead-letter-reason"] == "max-retries-exceeded"
    assert dead.attributes["convotic-dead-letter-attempts"] == "4"
    assert [run["attempt"] for run in stage.read_runs("failing")] == [1, 2, 3, 4]


def test_deliveries_that_nobody_ran_are_no_losses(stage: Stage) -> None:
    """Eight deliveries to somebody who runs nothing, with max_worker_losses=1; then one run."""
    with stage.worker():
        pass
    stage.publish_json(1, topic="probe.calm")
    path = f"projects/{stage.project}/subscriptions/probe.calm.probe"
    with make_subscriber(stage.address) as subscriber:
        for _ in range(8):
            answer = subscriber.pull(subscription=path, max_messages=1, timeout=PATIENCE)
            (received,) = answer.received_messages
            subscriber.modify_ack_deadline(
                subscription=path, ack_ids=[received.ack_id], ack_deadline_seconds=0
            )
    with stage.worker():
        wait_until(lambda: stage.read_runs("calm"))
        assert not stage.has_message("probe.calm.probe.dead-letter")

    assert [run["attempt"] for run in stage.read_runs("calm")] == [1]


def test_a_worker_that_never_had_a_descriptor_left_gives_nothing_up(stage: Stage) -> None:
    """None from its start on: what it needs for its first message is there."""
    with stage.worker() as worker:
        process = psutil.Process(worker.child.pid)
        limits = process.rlimit(psutil.RLIMIT_NOFILE)
        # Below all that is open: what was open just then leaves no room when it is closed.
        process.rlimit(psutil.RLIMIT_NOFILE, (3, limits[1]))
        stage.publish_json(*range(6), topic="probe.opening")
        wait_until(lambda: "stands still" in worker.read_log())
        never(lambda: stage.read_runs("opening"), for_=3)
        process.rlimit(psutil.RLIMIT_NOFILE, limits)
        wait_until(lambda: {run["data"] for run in stage.read_runs("opening")} == set(range(6)))
        assert not stage.has_message("probe.opening.probe.dead-letter")


def test_a_worker_without_descriptors_fails_no_message(stage: Stage) -> None:
    """With max_retries=0: its handlers stand still until there are some, and say so once."""
    with stage.worker() as worker:
        stage.publish_json(0, topic="probe.hoarding")
        wait_until(lambda: stage.read_runs("hoarding"))
        stage.publish_json(*range(6), topic="probe.opening")
        wait_until(lambda: "stands still" in worker.read_log())
        never(lambda: stage.read_runs("opening"), for_=6)
        (stage.folder / "enough").touch()
        wait_until(lambda: {run["data"] for run in stage.read_runs("opening")} == set(range(6)))
        assert not stage.has_message("probe.opening.probe.dead-letter")

    assert worker.read_log().count("stands still") == 1
