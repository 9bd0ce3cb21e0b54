"""How many workers a handler needs: pure, from what its workers and the broker say.

What a worker sees itself is right within seconds everywhere: how many of its slots are busy, how
long a run takes, how long ago the oldest message that waits was published. Only the broker knows
what waits where no worker has room; our emulator says so exactly, the service minutes late, so late
figures count only where the workers do not contradict them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from convotic_pubsub.client.backlog_size import BacklogSize

__all__ = ["DEFAULT_RUN_SECONDS", "TARGET_LOAD", "HandlerReport", "count_waiting", "needed_workers"]

#: The share of slots that should be busy: the rest is for what arrives unevenly.
TARGET_LOAD: Final = 0.8
#: How long a run of a handler that has never ended one is taken to last.
DEFAULT_RUN_SECONDS: Final = 1.0
#: From here on a worker's slots count as all taken.
_FULL: Final = 0.95


class HandlerReport(NamedTuple):
    """What one worker says of one handler."""

    slots: int
    #: Slots that are taken, on average over the last ten seconds.
    busy: float
    #: Runs that ended, a second, over the last ten seconds.
    rate: float
    #: Of a run, on average; None: none has ended yet.
    run_seconds: float | None
    #: Messages that are here and wait for a slot.
    buffered: int
    #: Failed messages that wait for their retry here.
    retrying: int
    #: Since the oldest message that waits here for a slot was published; 0.0: none waits.
    oldest_seconds: float


def count_waiting(
    reports: Sequence[HandlerReport], backlog: BacklogSize | None, *, is_seen: bool = False
) -> float:
    """Return how many messages wait for a slot, as far as can be known.

    Args:
        reports: Of the workers that pull the handler's subscription.
        backlog: What the broker says of the subscription; None: nothing.
        is_seen: Somebody has looked into the subscription, and something was there.
    """
    buffered = sum(each.buffered for each in reports)
    if backlog is not None and backlog.leased is not None:  # exact
        return max(0, backlog.messages - backlog.leased) + buffered
    if not reports:
        return max(backlog.messages if backlog else 0, int(is_seen))
    if any(each.busy < _FULL * each.slots for each in reports):
        return buffered  # it has room, and nothing comes: whatever the broker says is over
    rate = sum(each.rate for each in reports)
    by_age = rate * max(each.oldest_seconds for each in reports)
    late = 0.0
    if backlog is not None:
        here = sum(each.busy + each.retrying for each in reports)
        late = backlog.messages - here - rate * backlog.figures_age_seconds
    return max(buffered, by_age, late)


def needed_workers(
    reports: Sequence[HandlerReport],
    waiting: float,
    *,
    slots: int,
    run_seconds: float | None,
    drain_seconds: float,
) -> int:
    """Return how many workers one handler needs.

    Enough for what arrives (the busy slots, at :data:`TARGET_LOAD`) and for what waits to be done
    within ``drain_seconds`` beside it; 0 only if there is neither.

    Args:
        reports: Of the workers that pull it.
        waiting: Messages that wait.
        slots: Of one worker.
        run_seconds: Of a run; None: not known.
        drain_seconds: In how many seconds a backlog should be worked off.
    """
    busy = sum(each.busy for each in reports)
    seconds = DEFAULT_RUN_SECONDS if run_seconds is None else run_seconds
    # Never more than one slot a message: a run does not get shorter.
    extra = min(waiting, waiting * seconds / drain_seconds)
    needed = math.ceil((busy / TARGET_LOAD + extra) / slots - 0.01)
    return max(needed, int(busy > 0 or waiting > 0))
