"""Python's garbage collector in a worker: fewer, larger collections.

Everything that a message brings (payload, request, context) is a dict or holds some, so with
CPython's default of 700 new containers a collection ran for every few messages, again and
again through the same loaded modules and messages in flight. It was a quarter of a worker's time
(``benchmarks/DIARY.md``).
"""

from __future__ import annotations

import gc
import sys

__all__ = ["tune_gc"]

#: CPython's own, up to 3.13; others were chosen on purpose, and stay.
_DEFAULTS = {(700, 10, 10), (2000, 10, 0)}
#: New containers between collections of the youngest: about a hundred messages' worth. What is left
#: of a message is freed by counting references; only cycles wait, a few MB of them at most.
_YOUNG = 10_000
_MIDDLE, _OLD = 20, 20


def tune_gc() -> None:
    """Exclude what is loaded from collections and make them rarer. Idempotent.

    Call it once the process has loaded its code, and only in a process that is ours.
    """
    if sys.implementation.name != "cpython" or gc.get_threshold() not in _DEFAULTS:
        return
    gc.freeze()  # without collecting first: imports leave next to nothing, and it takes 80 ms
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
