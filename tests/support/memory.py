"""How much memory something takes: the same on any machine, where its time is not."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Peak", "peak_memory"]


class Peak:
    """Bytes that Python had at most, more than at the beginning. Known after the block."""

    size = 0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the block; threads of the process that run meanwhile count, too."""
    peak = Peak()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield peak
        peak.size = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
