"""Writes metrics as text, for scrapes that cost little: :class:`Exposition`.

A worker of 300 handlers has 20,000 samples. prometheus_client would make an object of each and a
text of each object's labels; here names and labels are written once, and of a scrape only numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = ["Buckets", "Exposition", "Family", "Number"]

_OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"

_LINES_AT_ONCE: Final = 50
_PAUSE_SECONDS: Final = 0.0001

_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

#: The values of its labels, and a number.
Number: TypeAlias = tuple[tuple[str, ...], float]
#: The values of its labels, the upper bounds, how many fell into each (one more), and their sum.
Buckets: TypeAlias = tuple[tuple[str, ...], tuple[float, ...], Sequence[int], float]


class Family(NamedTuple):
    """A metric with all its samples."""

    name: str
    #: counter, gauge or histogram; a histogram's rows are :data:`Buckets`.
    kind: str
    labels: tuple[str, ...]
    text: str
    rows: Iterable[Number] | Iterable[Buckets]


class Exposition:
    """Writes the same families again and again. Thread-safe.

    Args:
        constant: Labels that every sample has.
    """

    def __init__(self, constant: dict[str, str] | None = None) -> None:
        self._constant = constant or {}
        self._headers: dict[tuple[str, bool], str] = {}
        #: What stands before a sample's number: by metric and values of labels.
        self._names: dict[tuple[str, tuple[str, ...]], str] = {}
        #: What stands before a histogram's numbers, and the text it had last.
        self._histograms: dict[tuple[str, tuple[str, ...]], _Histogram] = {}

    def write(self, families: Iterable[Family], accept: str) -> tuple[bytes, str]:
        """Return them in the format that the header ``Accept`` asks for, and its content type."""
        is_openmetrics = "application/openmetrics-text" in accept
        lines: list[str] = []
        paused_at = 0
        for family in families:
            lines.append(self._header(family, is_openmetrics))
            rows: Iterable[Any] = family.rows
            if family.kind == "histogram":
                for row in rows:
                    lines.append(self._histogram(family, *row))
                    paused_at = _let_others_run(len(lines), paused_at)
            else:
                lines.extend(self._numbers(family, rows))
            paused_at = _let_others_run(len(lines), paused_at)
        if is_openmetrics:
            lines.append("# EOF")
        lines.append("")
        return "\n".join(lines).encode(), _OPENMETRICS if is_openmetrics else _PROMETHEUS

    def _header(self, family: Family, is_openmetrics: bool) -> str:
        header = self._headers.get((family.name, is_openmetrics))
        if header is None:
            is_counter = family.kind == "counter" and not is_openmetrics
            name = f"{family.name}_total" if is_counter else family.name
            text = family.text.translate(_ESCAPES)
            header = f"# HELP {name} {text}\n# TYPE {name} {family.kind}"
            self._headers[family.name, is_openmetrics] = header
        return header

    def _numbers(self, family: Family, rows: Iterable[Number]) -> list[str]:
        names, name = self._names, family.name
        lines = []
        for values, number in rows:
            known = names.get((name, values))
            if known is None:
                suffix = "_total" if family.kind == "counter" else ""
                known = names[name, values] = f"{self._sample(family, values, suffix)} "
            lines.append(f"{known}{float(number)!r}")
        return lines

    def _histogram(
        self,
        family: Family,
        values: tuple[str, ...],
        bounds: tuple[float, ...],
        counts: Sequence[int],
        total: float,
    ) -> str:
        known = self._histograms.get((family.name, values))
        if known is None:
            limits = [*(str(float(bound)) for bound in bounds), "+Inf"]
            known = self._histograms[family.name, values] = _Histogram(
                [f"{self._sample(family, values, '_bucket', limit)} " for limit in limits],
                f"{self._sample(family, values, '_count')} ",
                f"{self._sample(family, values, '_sum')} ",
            )
        return known.write(counts, total)

    def _sample(
        self, family: Family, values: tuple[str, ...], suffix: str, bound: str | None = None
    ) -> str:
        labels = {**self._constant, **dict(zip(family.labels, values, strict=True))}
        if bound is not None:
            labels["le"] = bound
        written = [f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items()]
        return f"{family.name}{suffix}{{{','.join(written)}}}"


def _let_others_run(written: int, paused_at: int) -> int:
    """Pause if a good deal was written since the last pause; return where that was.

    Python would let the handlers' loop wait for 5 ms at a time, again and again in a long scrape.
    """
    if written - paused_at < _LINES_AT_ONCE:
        return paused_at
    time.sleep(_PAUSE_SECONDS)  # noqa: TID251 - a scrape's thread
    return written


class _Histogram:
    """One histogram: most of them have not changed since the last scrape."""

    __slots__ = ("_buckets", "_count", "_sum", "_written")

    def __init__(self, buckets: list[str], count: str, total: str) -> None:
        self._buckets = buckets
        self._count = count
        self._sum = total
        self._written: tuple[int, float, str] | None = None

    def write(self, counts: Sequence[int], total: float) -> str:
        counts = list(counts)  # a run may end meanwhile
        count = sum(counts)
        written = self._written
        if written is not None and written[:2] == (count, total):
            return written[2]
        numbers = accumulate(counts)
        lines = [f"{name}{n}.0" for name, n in zip(self._buckets, numbers, strict=True)]
        lines += (f"{self._count}{count}.0", f"{self._sum}{total!r}")
        text = "\n".join(lines)
        self._written = count, total, text
        return text
