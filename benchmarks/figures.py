"""Arithmetic of measurements, and reading them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "LineCounter",
    "Sample",
    "count_lines",
    "has_lines",
    "percentile",
    "rate_of_middle",
    "read_record",
]


@dataclass(frozen=True, slots=True)
class Sample:
    """Repeated measurements of one figure."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> str:
        """The smallest and the largest value."""
        return f"{min(self.values):,.4g} … {max(self.values):,.4g}"


def rate_of_middle(arrivals_ns: Sequence[int]) -> float:
    """Return messages per second over the middle 80 % of the arrivals."""
    ordered = sorted(arrivals_ns)
    edge = len(ordered) // 10
    middle = ordered[edge : len(ordered) - edge]
    return (len(middle) - 1) / (middle[-1] - middle[0]) * 1e9


def percentile(values: Sequence[float], share: float) -> float:
    """Return the quantile ``share`` (0 to 1) of the values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def read_record(path: Path) -> list[tuple[int, int]]:
    """Return a measured handler's record: when each message was sent and when it arrived."""
    lines = path.read_text().splitlines()
    return [(int(sent), int(arrived)) for sent, arrived in (line.split() for line in lines)]


def count_lines(path: Path) -> int:
    """Return how many messages a measured handler has recorded so far."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def has_lines(path: Path, count: int) -> bool:
    """Return whether a measured handler has recorded at least this many."""
    return count_lines(path) >= count


class LineCounter:
    """Counts like :func:`count_lines`, reading only new lines.

    Waiting for a million lines must not take a core from the measurement.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._lines = 0

    def __call__(self) -> int:
        """Return how many lines there are now."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
            self._read += len(new)
            self._lines += new.count(b"\n")
        return self._lines
