"""A thousand waiting handlers in one worker process."""

from __future__ import annotations

from pathlib import Path

from convotic_celery.cli.demo.producer import close_publisher, make_publisher
from tests.acceptance.stage import Stage, make_stage
from tests.support.waiting import PATIENCE, wait_until

NUMBER = 1_000
MODULE = f'''
"""A handler none of whose runs returns before all have begun."""

import asyncio
import json
import os
import threading
from pathlib import Path

from convotic_celery import ConvoticModule, WorkerMessage

module = ConvoticModule(name="probe", version="1.0.0")
RECORD = Path(os.environ["CONVOTIC_TEST_RECORD"])
begun = set()
all_began = asyncio.Event()


@module.worker("probe.meeting", concurrency={NUMBER}, ack_deadline=60)
async def meet(message: WorkerMessage, ctx) -> None:
    begun.add(message.data)
    if len(begun) == {NUMBER}:
        line = {{"what": "met", "threads": threading.active_count()}}
        RECORD.write_text(json.dumps(line) + "\\n")
        all_began.set()
    await all_began.wait()
'''


def test_a_thousand_handlers_wait_at_once(tmp_path: Path, data_dir: Path) -> None:
    """concurrency=1000: each is a coroutine, none a thread; each message has one run."""
    stage = make_stage(tmp_path, data_dir, None)
    (tmp_path / "modules" / "probe.py").write_text(MODULE)

    with stage.worker() as worker:
        publish_numbers(stage)
        (met,) = wait_until(lambda: stage.read_runs("met"))
        worker.child.terminate()  # a warm stop waits for all of them
        assert worker.child.wait(PATIENCE) == 0

    assert met["threads"] < 50
    assert worker.read_log().count(" succeeded in ") == NUMBER


def publish_numbers(stage: Stage) -> None:
    """Publish them with one client, confirmed."""
    publisher = make_publisher(stage.address)
    try:
        path = f"projects/{stage.project}/topics/probe.meeting"
        futures = [publisher.publish(path, str(number).encode()) for number in range(NUMBER)]
        for future in futures:
            future.result(PATIENCE)
    finally:
        close_publisher(publisher)
