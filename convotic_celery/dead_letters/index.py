"""The index of dead letters in the store: :class:`Index`. What it knows is in ``scripts``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from convotic_celery.dead_letters import scripts
from convotic_celery.dead_letters.entry import (
    DeadLetter,
    Group,
    State,
    decode,
    encode,
    encode_data,
    entry_id,
    from_microseconds,
    microseconds,
)
from convotic_celery.errors import InvalidField

if TYPE_CHECKING:
    from convotic_celery.context.database import SyncDatabase
    from convotic_celery.context.scripts import Script
    from convotic_celery.dead_letters.match import Match

__all__ = ["Index", "Recorded", "Selected"]

_STATES: tuple[State, ...] = ("open", "replayed", "archived", "missing", "purged")
#: Entries that one script looks at: a script has the store to itself while it runs.
_CHUNK = 2_000
#: Entries that one call writes, and bytes of data.
_WRITES = 100
_MAX_GROUPS = 10_000


class Recorded(NamedTuple):
    """What became of an entry that was written."""

    #: "new", "again", "same" or "stale".
    what: str
    is_first_of_group: bool


class Selected(NamedTuple):
    """An entry's id, and its group."""

    id: str
    group: str


class Index:
    """Entries, groups and states. Thread-safe; every method raises StoreUnavailable.

    Args:
        database: The store.
        key_prefix: Of all keys of the app.
        retention_seconds: How long dead letters are kept.
        now: The clock.
    """

    def __init__(
        self,
        database: SyncDatabase,
        *,
        key_prefix: str,
        retention_seconds: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self.prefix = f"{key_prefix}dead-letters:"
        self._retention = int(retention_seconds)
        self.now = now

    def run(self, script: Script, *arguments: object) -> Any:
        """Run one of the scripts, with the prefix before its arguments."""
        return self._database.run(script, (), self.prefix, *map(str, arguments))

    @property
    def ttl(self) -> int:
        """Seconds after which what is not an entry expires."""
        return self._retention

    @property
    def oldest(self) -> int:
        """The time before which entries have expired."""
        return microseconds(self.now()) - self._retention * 1_000_000

    # -- writing ----------------------------------------------------------------------------------

    def record(self, entries: Sequence[DeadLetter]) -> list[Recorded]:
        """Write entries; repeating it changes nothing. A dead letter's newest failure counts."""
        answers: list[Recorded] = []
        for some in in_batches(entries, _WRITES):
            arguments: list[str] = []
            for dead in some:
                attributes = json.dumps(dict(dead.all_attributes))
                at = str(microseconds(dead.dead_lettered_at))
                arguments += [dead.id, dead.group, at, str(dead.failed_again)]
                arguments += encode(dead, attributes)
            found = self.run(scripts.RECORD, microseconds(self.now()), self._retention, *arguments)
            answers += [Recorded(w, f == "1") for w, f in zip(found[::2], found[1::2], strict=True)]
        return answers

    def decide(
        self, messages: Sequence[DeadLetter], *, mark: str = "", todo: str = ""
    ) -> list[str]:
        """Say of each message of a pass whether it is "unknown", "stale", "todo" or "known"."""
        arguments = [part for dead in messages for part in (dead.id, str(dead.failed_again))]
        answer: list[str] = self.run(scripts.DECIDE, mark, todo, *arguments) if messages else []
        return answer

    def move(
        self,
        ids: Sequence[str],
        *,
        to: State,
        of: Sequence[State],
        action: str,
        by: str,
        detail: str = "",
        job: str = "",
    ) -> int:
        """Move entries from one of the states ``of`` to another; return how many were."""
        moved, states = 0, f":{':'.join(of)}:"
        for some in in_batches(ids, 500):
            moved += self.run(
                scripts.MOVE,
                microseconds(self.now()),
                self._retention,
                to,
                states,
                action,
                _one_line(by),
                _one_line(detail),
                job,
                *some,
            )
        return moved

    def edit(self, entry: str, data: bytes | None, by: str) -> bool:
        """Keep what the next replay has as data; None: the original. False: it is gone."""
        body, coding = encode_data(data)
        packed = "" if data is None else f"{'b' if coding else 't'}{body}"
        now = microseconds(self.now())
        return bool(self.run(scripts.EDIT, now, entry, packed, _one_line(by)))

    def mark_missing(self, ids: Sequence[str], handler: str, mark: str) -> int:
        """Move entries of a handler that a pass has not seen to "missing"; return how many."""
        now = microseconds(self.now())
        return sum(
            self.run(scripts.MISSING, now, self._retention, mark, handler, *some)
            for some in in_batches(ids, _CHUNK)
        )

    def log(self, by: str, action: str, what: str, count: int, job: str = "") -> None:
        """Write a line of the action log."""
        now = microseconds(self.now())
        self.run(scripts.LOG, now, self._retention, by, action, what, count, job)

    def read_log(self, limit: int) -> list[dict[str, str]]:
        """Return the newest lines of the action log."""
        lines = [dict(_pairs(each)) for each in self.run(scripts.READ_LOG, limit)]
        return [{**line, "at": from_microseconds(line["at"]).isoformat()} for line in lines]

    # -- reading ----------------------------------------------------------------------------------

    def read(self, ids: Sequence[str]) -> list[DeadLetter]:
        """Return the entries that there are, in the order of the ids."""
        found: list[DeadLetter] = []
        for some in in_batches(ids, 500):
            for entry, raw in zip(some, self.run(scripts.READ, *some), strict=True):
                fields = dict(_pairs(raw))
                if "st" in fields:
                    found.append(decode(entry, fields, json.loads(fields["u"])))
        return found

    def resolve(self, ids: Iterable[str]) -> list[str]:
        """Return the ids of the entries that ids or message ids name."""
        ids = list(ids)
        handlers = {group.handler for group in self.groups()}
        possible = [*ids, *(entry_id(handler, each) for each in ids for handler in handlers)]
        found: list[str] = []
        for some in in_batches(possible, 1_000):
            found += self.run(scripts.EXISTING, *some)
        return found

    def groups(self) -> list[Group]:
        """Return all groups, the one with the newest dead letter first."""
        return [_read_group(*each) for each in self.run(scripts.GROUPS, self.oldest, _MAX_GROUPS)]

    def sorted_set(self, match: Match, groups: Sequence[Group] | None) -> str:
        """Return the smallest sorted set that has all that match."""
        if groups is not None and len(groups) == 1:
            return f"group:{groups[0].id}:{match.state}"
        return f"state:{match.state}"

    def groups_of(self, match: Match) -> list[Group] | None:
        """Return the groups that match; None: all."""
        if not match.looks_at_groups:
            return None
        return [group for group in self.groups() if match.takes_group(group)]

    def count(self, match: Match) -> int | None:
        """Return how many match; None if that takes a look at each entry."""
        if match.looks_at_entries or match.ids:
            return None
        groups = self.groups_of(match)
        newest, oldest = self.bounds(match)
        keys = [f"state:{match.state}"]
        if groups is not None:
            keys = [f"group:{group.id}:{match.state}" for group in groups]
        return int(self.run(scripts.COUNT, oldest, newest, *keys))

    def bounds(self, match: Match) -> tuple[str, str]:
        """Return the newest and the oldest time that match."""
        now = microseconds(self.now())
        newest, oldest = "+inf", str(self.oldest)
        if match.older_than is not None:
            newest = str(now - round(match.older_than * 1_000_000))
        if match.newer_than is not None:
            oldest = str(max(self.oldest, now - round(match.newer_than * 1_000_000)))
        return newest, oldest

    def select(self, match: Match, *, cursor: str = "", limit: int) -> tuple[list[Selected], str]:
        """Return up to ``limit`` of those that match, newest first, and the next cursor or ""."""
        found: list[Selected] = []
        for some, following in self._pages(match, cursor, limit):
            found += some
            if len(found) >= limit:
                return found, following
        return found, ""

    def each(self, match: Match) -> Iterator[Selected]:
        """Yield all that match now, newest first; what comes meanwhile is not among them."""
        started = f"{microseconds(self.now())}:"
        for some, _ in self._pages(match, started, _CHUNK):
            yield from some

    def _pages(self, match: Match, cursor: str, limit: int) -> Iterator[tuple[list[Selected], str]]:
        """Yield what chunk after chunk has, and the cursor behind it; "" behind the last."""
        if cursor and not re.match(r"\d+:", cursor, re.ASCII):
            raise InvalidField(f"{cursor!r} is not a cursor: pass a page's next_cursor")
        if match.ids:
            chosen = self.read(self.resolve(match.ids))
            yield [Selected(d.id, d.group) for d in chosen if d.state == match.state], ""
            return
        groups = self.groups_of(match)
        if groups == []:
            yield [], ""
            return
        key = self.sorted_set(match, groups)
        several = [g.id for g in groups] if groups is not None and len(groups) > 1 else None
        condition = match.to_filter(several)
        newest, oldest = self.bounds(match)
        top, _, after = cursor.partition(":")
        if top and newest != "+inf":
            top, after = (top, after) if int(top) <= int(newest) else (newest, "")
        top, left = top or newest, limit
        budget = _CHUNK if condition else min(_CHUNK, limit + 1)
        while True:
            more, at, last, *pairs = self.run(
                scripts.SELECT, key, top, after, oldest, budget, left, condition, self.oldest
            )
            some = [Selected(*pair) for pair in _pairs(pairs)]
            left -= len(some)
            if at:
                top, after = at, last
            yield some, f"{top}:{after}" if more and at else ""
            if not more or not at:
                return
            if left <= 0:
                left = limit


def _read_group(group: str, last: str, raw: Sequence[str], counts: Sequence[int]) -> Group:
    fields = dict(_pairs(raw))
    return Group(
        id=group,
        handler=fields.get("h", ""),
        reason=fields.get("r", ""),
        error_type=fields.get("e", ""),
        error_message=fields.get("x", ""),
        stack=tuple(fields["s"].split("\n")) if fields.get("s") else (),
        first_at=from_microseconds(fields.get("first", last)),
        last_at=from_microseconds(last),
        counts=dict(zip(_STATES, counts, strict=True)),
        failed_again=int(fields.get("again", 0)),
    )


def in_batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield the items, so many at a time."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _pairs(flat: Sequence[str]) -> Iterable[tuple[str, str]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
