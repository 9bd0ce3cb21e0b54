"""A plain Celery app with the same no-op task, on the broker that ``BENCH_BROKER`` names."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery

app = Celery("peers", broker=os.environ["BENCH_BROKER"])
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=int(os.environ.get("BENCH_MULTIPLIER", "1")),
    worker_send_task_events=bool(os.environ.get("BENCH_EVENTS")),
    task_default_queue=os.environ.get("BENCH_QUEUE", "bench"),
    broker_connection_retry_on_startup=True,
)
_record: list[str] = []
_path = os.environ.get("BENCH_RECORD", os.devnull)
_BLOCK = int(os.environ.get("BENCH_BLOCK", "100"))


@app.task(name="note_arrival")
def note_arrival(sent: int, padding: str) -> None:  # noqa: ARG001 - a no-op
    note(sent)


def note(sent: int) -> None:
    """Note that a message has arrived."""
    _record.append(f"{sent} {time.monotonic_ns()}\n")
    if len(_record) >= _BLOCK:
        with Path(_path).open("a") as file:
            file.write("".join(_record))
        _record.clear()
