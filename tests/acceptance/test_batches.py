"""A handler of batches in a real worker: one call for many messages, each on its own after that."""

from __future__ import annotations

import os
import signal

import pytest

from tests.acceptance.commands import convotic
from tests.acceptance.stage import Stage
from tests.support.waiting import wait_until

TOPIC = "custom.numbers.new"
QUEUE = f"{TOPIC}.numbers"

MODULE = """
import json
import os
import time
from pathlib import Path

from convotic_celery import (
    BatchFailed,
    BatchOptions,
    ConvoticContext,
    ConvoticModule,
    SyncConvoticContext,
    WorkerMessage,
)

module = ConvoticModule(name="numbers", version="1.0.0")
RECORD = Path(os.environ["CONVOTIC_TEST_RECORD"])


def record(what: str, messages: list[WorkerMessage[int]]) -> None:
    numbers = [message.data for message in messages]
    with RECORD.open("a") as file:
        file.write(json.dumps({"what": what, "numbers": numbers, "pid": os.getpid()}) + "\\n")


@module.worker(
    "custom.numbers.new",
    batch=BatchOptions(max_size=50, max_wait=3),
    max_retries=0,
    ack_deadline=10,
)
async def store(messages: list[WorkerMessage[int]], ctx: ConvoticContext) -> None:
    record("start", messages)
    while Path("hold").exists():
        time.sleep(0.05)
    bad = [message for message in messages if message.data < 0]
    record("end", [message for message in messages if message.data >= 0])
    if bad:
        raise BatchFailed([(message, ValueError("negative")) for message in bad])
"""


@pytest.fixture
def numbers(stage: Stage) -> Stage:
    """A stage with a module of batches beside the tests' own."""
    (stage.folder / "modules" / "numbers_module.py").write_text(MODULE)
    return stage


def stored(stage: Stage) -> list[int]:
    return sorted(number for run in stage.read_runs("end") for number in run["numbers"])


def test_a_backlog_is_called_in_batches_and_named_failures_are_dead_lettered(
    numbers: Stage,
) -> None:
    """200 messages in few calls; the one that failed is a dead letter, and no other."""
    assert convotic(numbers, "topology", "apply", "--yes").returncode == 0
    # All are there before the worker is: none waits for a publisher.
    numbers.publish_json(*range(100), -1, *range(100, 199), topic=TOPIC)
    with numbers.worker("-Q", QUEUE):
        wait_until(lambda: set(stored(numbers)) == set(range(199)))
        dead = numbers.pull_dead_letter(queue=QUEUE)

    assert dead.data == b"-1"
    assert dead.attributes["convotic-dead-letter-error-message"] == "negative"
    sizes = [len(run["numbers"]) for run in numbers.read_runs()]
    assert max(sizes) == 50
    assert len(sizes) <= 12


def test_a_batch_of_a_killed_worker_is_run_again(numbers: Stage) -> None:
    """Nothing of it was acknowledged: another worker gets all of its messages."""
    (numbers.folder / "hold").touch()
    with numbers.worker("-Q", QUEUE):
        numbers.publish_json(*range(50), topic=TOPIC)
        runs = wait_until(numbers.read_runs)
        os.kill(runs[0]["pid"], signal.SIGKILL)
    (numbers.folder / "hold").unlink()
    with numbers.worker("-Q", QUEUE):
        wait_until(lambda: set(stored(numbers)) == set(range(50)))


def test_a_pool_of_one_message_a_process_is_refused(numbers: Stage) -> None:
    """Prefork would wait for others that never come: one line says what to do."""
    with numbers.worker("-P", "prefork", ready=False) as worker:
        wait_until(lambda: not worker.child.is_running)

    assert f"{QUEUE}: a handler with batch= needs a pool that has many" in worker.read_log()
    assert "Traceback" not in worker.read_log()
