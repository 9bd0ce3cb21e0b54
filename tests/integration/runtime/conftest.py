"""A real worker on the embedded broker, with handlers that show which pool ran them and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.stage import Stage, make_stage

#: Each run of a handler is one line of JSON; ``what`` says what happened.
MODULE = '''
"""Handlers that tell where they ran."""

import asyncio
import json
import os
import threading
import time
from pathlib import Path

from celery import current_task

from convotic_celery import ConvoticModule, WorkerMessage

module = ConvoticModule(name="probe", version="1.0.0")
RECORD = Path(os.environ["CONVOTIC_TEST_RECORD"])


def record(message: WorkerMessage, what: str, **fields: object) -> None:
    line = {
        "what": what,
        "at": time.time(),
        "id": message.id,
        "data": message.data,
        "attempt": message.attempt,
        "pid": os.getpid(),
        "thread": threading.current_thread().name,
    }
    with RECORD.open("a") as file:
        file.write(json.dumps(line | fields) + "\\n")


@module.worker("probe.async", concurrency=8)
async def run_async(message: WorkerMessage, ctx) -> None:
    await asyncio.sleep(0.01)
    record(message, "async", task=current_task.request.id if current_task else None)


@module.worker("probe.plain", concurrency=8)
def run_plain(message: WorkerMessage, ctx) -> None:
    record(message, "plain", task=current_task.request.id)


@module.worker("probe.failing", max_retries=1, ack_deadline=1)
async def fail(message: WorkerMessage, ctx) -> None:
    record(message, "failing")
    raise ValueError("always")


@module.worker("probe.endless", max_retries=1, ack_deadline=2)
async def wait_for_ever(message: WorkerMessage, ctx) -> None:
    record(message, "endless")
    await asyncio.Event().wait()


@module.worker("probe.blocking", max_retries=0, ack_deadline=2)
def block_for_ever(message: WorkerMessage, ctx) -> None:
    record(message, "blocking")
    threading.Event().wait(30)


@module.worker("probe.dying", max_retries=5, ack_deadline=2, max_worker_losses=2)
def die(message: WorkerMessage, ctx) -> None:
    record(message, "dying")
    os._exit(9)


@module.worker("probe.slow", ack_deadline=60, concurrency=2)
async def take_long(message: WorkerMessage, ctx) -> None:
    record(message, "slow")
    try:
        await asyncio.sleep(message.data)
    except asyncio.CancelledError:
        record(message, "cancelled")
        raise
    record(message, "slow-end")
'''


@pytest.fixture
def stage(tmp_path: Path, data_dir: Path) -> Stage:
    """A working folder with the handlers above, on the embedded broker and store."""
    stage = make_stage(tmp_path, data_dir, None)
    (tmp_path / "modules" / "probe.py").write_text(MODULE)
    return stage
