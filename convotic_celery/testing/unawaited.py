"""Detects coroutines that were never awaited; in a worker that is one warning in a log."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

__all__ = ["check_awaited", "noticing_unawaited"]

_TEXT = "was never awaited"


@contextmanager
def noticing_unawaited() -> Iterator[list[str]]:
    """Collect Python's warnings about them inside the block, each with file and line.

    To be left in the opposite order of entering, as all that changes Python's warnings.
    """
    found: list[str] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("always", rf"coroutine .* {_TEXT}", RuntimeWarning)
        show_others = warnings.showwarning

        def show(  # noqa: PLR0917 - the signature of what it stands for
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if category is RuntimeWarning and _TEXT in str(message):
                found.append(f"{filename}:{lineno}: {message}")
            else:
                show_others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield found


def check_awaited(found: list[str]) -> None:
    """Raise AssertionError with what was collected, once."""
    told, found[:] = [*found], []
    if told:
        raise AssertionError(f"An await is missing: {'; '.join(told)}")
