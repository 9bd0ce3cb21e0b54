"""What an observer of a real worker's runs gets, in each kind of pool."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.stage import QUEUE
from tests.support.lines import read_lines
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.acceptance.stage import Stage

#: A module without handlers, which writes what it gets of the others' runs.
WATCHER = """
import json
import os
from pathlib import Path

from convotic_celery import ConvoticModule
from convotic_celery.runtime.delivery.observing import RunObserver, observers

module = ConvoticModule(name="watcher", version="1.0.0")
EVENTS = Path(os.environ["CONVOTIC_TEST_RECORD"]).with_name("events.jsonl")


class Watcher(RunObserver):
    def message_taken(self, event):
        write("taken", event)

    def run_began(self, event):
        write("began", event, queue_seconds=event.queue_seconds)

    def message_settled(self, event):
        write(
            type(event.settlement).__name__,
            event,
            attempt=event.attempt,
            seconds=event.duration_seconds,
            traceback=event.traceback,
            dead_letter=dict(event.dead_letter or {}),
        )


def write(what, event, **more):
    line = {"what": what, "handler": event.message.handler, "id": event.message.message_id}
    with EVENTS.open("a") as file:
        file.write(json.dumps(line | {"pid": os.getpid()} | more) + "\\n")


observers.add(Watcher())
"""


@pytest.mark.parametrize("pool", ["asyncio", "threads", "prefork"])
def test_each_run_is_reported_by_the_workers_process(embedded_stage: Stage, pool: str) -> None:
    """One message succeeds and one fails at once, the latter with its traceback."""
    stage = embedded_stage
    (stage.folder / "modules" / "watcher.py").write_text(WATCHER)

    def events() -> list[dict[str, Any]]:
        return [json.loads(line) for line in read_lines(stage.folder / "events.jsonl")]

    arguments = [] if pool == "asyncio" else ["-P", pool, "-c", "2"]
    with stage.worker(*arguments) as worker:
        done = stage.publish_json({"id": 1})
        failed = stage.publish(b"no JSON")
        wait_until(lambda: len(events()) >= 6, what="six events")
        pid = worker.child._process.pid
        found = {message: [e for e in events() if e["id"] == message] for message in (done, failed)}

    assert [event["what"] for event in found[done]] == ["taken", "began", "Ack"]
    assert [event["what"] for event in found[failed]] == ["taken", "began", "Fail"]
    assert {event["pid"] for event in events()} == {pid}
    assert {event["handler"] for event in events()} == {QUEUE}
    assert 0 <= found[done][1]["queue_seconds"] < PATIENCE
    assert 0 <= found[done][2]["seconds"] < PATIENCE
    assert "InvalidMessage" in found[failed][2]["traceback"]
    assert found[failed][2]["dead_letter"]["convotic-dead-letter-reason"] == "invalid"
