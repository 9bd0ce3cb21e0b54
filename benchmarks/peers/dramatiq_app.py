"""A dramatiq actor that is the same no-op, on the Redis that ``BENCH_BROKER`` names.

``python -m benchmarks.peers.dramatiq_app N`` sends N messages.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker

PADDING = "x" * 160

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_BROKER"]))
_record: list[str] = []
_path = os.environ.get("BENCH_RECORD", os.devnull)
_lock = threading.Lock()
_BLOCK = 100


@dramatiq.actor(queue_name=os.environ.get("BENCH_QUEUE", "bench"))  # type: ignore[untyped-decorator]
def note_arrival(sent: int, padding: str) -> None:  # noqa: ARG001 - a no-op
    with _lock:
        _record.append(f"{sent} {time.monotonic_ns()}\n")
        if len(_record) >= _BLOCK:
            with Path(_path).open("a") as file:
                file.write("".join(_record))
            _record.clear()


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        note_arrival.send(time.monotonic_ns(), PADDING)
    print(sys.argv[1])
