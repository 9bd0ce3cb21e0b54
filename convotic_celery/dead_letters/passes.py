"""Goes through dead-letter subscriptions, since Pub/Sub can neither list nor peek: ``Passes``."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from convotic_celery.dead_letters.match import Match
from convotic_pubsub.errors import SubscriptionNotFound

if TYPE_CHECKING:
    from convotic_celery.dead_letters.deployment import Deployment
    from convotic_celery.dead_letters.entry import DeadLetter
    from convotic_celery.dead_letters.index import Index
    from convotic_pubsub.client.inspection import Seen

__all__ = ["Look", "Passed", "Passes", "SyncReport"]

_PULL = 1_000
#: Pulls without an answer until a subscription counts as empty.
_EMPTY_PULLS = 2

#: Takes messages, what they are, and a function that acknowledges some of them by their ack ids.
Look: TypeAlias = (
    "Callable[[Sequence[Seen], Sequence[DeadLetter], Callable[[Sequence[str]], object]], object]"
)


class Passed(NamedTuple):
    """What a pass has seen."""

    #: Messages.
    seen: int
    #: False if others hold messages, or it was ended early.
    is_complete: bool
    #: True if the server says exactly how many messages there are.
    is_certain: bool = False


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync has found in the dead-letter subscription of a handler."""

    handler: str
    #: Messages that it was handed.
    seen: int
    #: Of these, without an entry before.
    taken_in: int
    #: Of these, replayed or purged before, and acknowledged now.
    acknowledged: int
    #: Entries whose message is not there.
    missing: int
    #: False if others held messages, so that nothing can be said of the rest.
    is_complete: bool


class Passes:
    """Looks at what dead-letter subscriptions hold, in the calling thread."""

    def __init__(self, deployment: Deployment, index: Index) -> None:
        self._deployment = deployment
        self._index = index

    def go_through(self, handler: str, look: Look, goes_on: Callable[[], bool]) -> Passed:
        """Pull a handler's dead letters and have ``look`` acknowledge some.

        What it does not acknowledge is held until the end, so that it is seen once.
        """
        name = self._deployment.dead_letter_subscription(handler)
        if not name:
            return Passed(0, is_complete=False)
        session = self._deployment.session()
        count, empty = 0, 0
        most = 1 if session.broker.is_emulated else _EMPTY_PULLS
        with session.resources.inspect(name) as inspection:
            while goes_on() and empty < most:
                seen = inspection.pull(_PULL)
                empty = 0 if seen else empty + 1
                if seen:
                    count += len(seen)
                    dead = [self._deployment.read(each.received, handler) for each in seen]
                    look(seen, dead, inspection.acknowledge)
            if empty < most:
                return Passed(count, is_complete=False)
            size = session.resources.backlog_sizes([name]).get(name)
            if size is None or size.figures_age_seconds:
                return Passed(count, is_complete=True)
            return Passed(count, size.messages <= inspection.held, is_certain=True)

    def sync(self, handler: str) -> SyncReport:
        """Bring the index and the dead-letter subscription of a handler in line."""
        mark, started = secrets.token_hex(4), self._index.now()
        taken_in = acknowledged = 0

        def look(
            seen: Sequence[Seen],
            dead: Sequence[DeadLetter],
            acknowledge: Callable[[Sequence[str]], object],
        ) -> None:
            nonlocal taken_in, acknowledged
            decided = self._index.decide(dead, mark=mark)
            unknown = [d for d, what in zip(dead, decided, strict=True) if what == "unknown"]
            if unknown:
                recorded = self._index.record(unknown)
                taken_in += sum(each.what in ("new", "again") for each in recorded)
                self._index.decide(unknown, mark=mark)
            stale = [s.ack_id for s, w in zip(seen, decided, strict=True) if w == "stale"]
            acknowledge(stale)
            acknowledged += len(stale)

        passed = self.go_through(handler, look, lambda: True)
        missing = 0
        if passed.is_complete:
            age = (self._index.now() - started).total_seconds()
            match = Match(handler=handler, older_than=max(0.0, age))
            ids = [each.id for each in self._index.each(match)]
            missing = self._index.mark_missing(ids, handler, mark)
        return SyncReport(handler, passed.seen, taken_in, acknowledged, missing, passed.is_complete)

    def sample(self, handlers: Sequence[str], limit: int) -> list[DeadLetter]:
        """Return some dead letters as Pub/Sub hands them out; they are given back."""
        found: list[DeadLetter] = []
        for handler in handlers:
            name = self._deployment.dead_letter_subscription(handler)
            if name and len(found) < limit:
                with (
                    contextlib.suppress(SubscriptionNotFound),
                    self._deployment.session().resources.inspect(name) as inspection,
                ):
                    seen = inspection.pull(limit - len(found))
                    found += [self._deployment.read(each.received, handler) for each in seen]
        return sorted(found, key=lambda dead: dead.dead_lettered_at, reverse=True)
