"""How the demo spreads its kills over the run: by what has been processed, not by time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["CHAOS_OPTIONS", "KILLS", "Portion", "split_into_portions"]

KILLS = 4

#: Ack deadline of the demo: a killed worker's messages are delivered again after it.
CHAOS_OPTIONS = {"ack_deadline": 10}


@dataclass(frozen=True, slots=True)
class Portion:
    """Orders that are published together, and what must be processed before going on."""

    orders: Sequence[dict[str, Any]]
    #: How many orders must have been processed in all.
    processed_before_next: int
    #: Kill the worker then: half of this portion is still under way.
    kill_then: bool


def split_into_portions(orders: Sequence[dict[str, Any]], *, chaos: bool) -> Iterator[Portion]:
    """Yield all orders in one portion or, with ``chaos``, in one more than there are kills.

    Portions make sure that every kill hits a worker with work in hand, however fast it is.
    """
    portions = KILLS + 1 if chaos else 1
    ends = [len(orders) * number // portions for number in range(portions + 1)]
    for start, end in itertools.pairwise(ends):
        is_last = end == len(orders)
        yield Portion(
            orders[start:end],
            processed_before_next=end if is_last else (start + end) // 2,
            kill_then=not is_last,
        )
