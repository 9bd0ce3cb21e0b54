"""What measurements are read from."""

from __future__ import annotations

from pathlib import Path

from benchmarks.figures import LineCounter, rate_of_middle


def test_counter_reads_what_is_new(tmp_path: Path) -> None:
    """Whole lines count, whenever they are asked for; a file that isn't there yet has none."""
    path = tmp_path / "record"
    count = LineCounter(path)

    assert count() == 0
    path.write_text("1 2\n3 ")
    assert count() == 1
    with path.open("a") as file:
        file.write("4\n5 6\n")
    assert count() == 3
    assert count() == 3


def test_rate_is_of_the_middle() -> None:
    """A slow start and a slow end don't count; the order of the lines neither."""
    steady = [second * 1_000_000_000 for second in range(100, 180)]

    assert rate_of_middle([*reversed(steady), *range(10), *[10**15] * 10]) == 1.0
