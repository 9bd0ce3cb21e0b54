"""``python -m benchmarks.peers.publish N [RECORD]``: publish N tasks and print how many a second.

With RECORD one at a time: the next when the last has arrived there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.peers.celery_app import app, note_arrival

PADDING = "x" * 160


def main() -> None:
    count = int(sys.argv[1])
    record = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with app.producer_pool.acquire(block=True) as producer:
        began = time.perf_counter()
        for number in range(count):
            note_arrival.apply_async((time.monotonic_ns(), PADDING), producer=producer)
            if record is not None:
                wait_for_line(record, number + 1)
        print(count / (time.perf_counter() - began))


def wait_for_line(record: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while not (record.exists() and record.read_bytes().count(b"\n") >= count):
        if time.monotonic() > deadline:
            raise TimeoutError(f"message {count} did not arrive in 30 s")
        time.sleep(0.005)  # noqa: TID251 - our helpers are not in the peers' environment


if __name__ == "__main__":
    main()
