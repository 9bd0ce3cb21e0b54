"""Lines by the thousand, without delaying those of a slow pipe: :func:`read_batches`."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["read_batches"]

#: How long a line waits for the next one.
_PATIENCE_SECONDS = 0.1


def read_batches(file: TextIO, size: int) -> Iterator[list[tuple[int, str]]]:
    """Yield lines with their numbers from 1, up to ``size`` at a time; empty ones are left out.

    A batch ends early when no line follows for a moment. Reads ahead by one batch.
    """
    lines: queue.Queue[tuple[int, str] | BaseException | None] = queue.Queue(maxsize=size)
    threading.Thread(target=_read, args=(file, lines), daemon=True).start()
    batch: list[tuple[int, str]] = []
    while True:
        try:
            item = lines.get(timeout=_PATIENCE_SECONDS if batch else None)
        except queue.Empty:
            yield batch
            batch = []
            continue
        if isinstance(item, tuple):
            batch.append(item)
            if len(batch) < size:
                continue
        if batch:
            yield batch
            batch = []
        if isinstance(item, BaseException):
            raise item
        if item is None:
            return


def _read(file: TextIO, lines: queue.Queue[tuple[int, str] | BaseException | None]) -> None:
    try:
        for number, line in enumerate(file, start=1):
            if line.strip():
                lines.put((number, line))
    except (OSError, ValueError) as error:  # UnicodeDecodeError too
        lines.put(error)
    else:
        lines.put(None)
