"""What is counted, outside of the system: what was confirmed, run, and dead-lettered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.support.lines import read_lines

__all__ = ["DeadLetter", "Ledger", "Verdict"]


class DeadLetter(NamedTuple):
    """One that was read from a dead-letter subscription."""

    number: str
    #: Id of the message that it is a copy of, and its own.
    source: str
    copy: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run of chaos ended, in messages."""

    confirmed: int
    processed: int
    dead_lettered: int
    #: Finished more than once without a key: at least once is what Pub/Sub promises.
    run_twice: int
    #: Finished more than once with a key; a crash between the end of a run and its record does it.
    run_twice_with_key: int
    lost: int
    #: The rule above all others.
    dead_lettered_without_a_run: int
    #: Of the keyed messages, what the contact's total says beyond or below those processed;
    #: None where the store's data was taken away.
    effect_difference: int | None
    workers_that_ended: int
    #: Of a message that has one already: its worker was killed before the acknowledgement, or the
    #: publish was not answered in time and was repeated.
    dead_letters_repeated: int = 0
    #: Of a message that its publisher has sent twice, since the first time was not answered.
    dead_letters_of_copies: int = 0
    #: Of each dead letter, without those two.
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether nothing happened that must never happen."""
        return not (
            self.lost
            or self.dead_lettered_without_a_run
            or self.effect_difference
            or self.workers_that_ended
        )

    def show(self) -> str:
        """Return one figure a line."""
        return "\n".join(f"{name.replace('_', ' '):<30}{v}" for name, v in asdict(self).items())


class Ledger:
    """Ids of messages, as the publisher, the handlers and the dead-letter topics know them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.confirmed: set[str] = set()
        #: Any may be read twice: each counts once.
        self.dead_letters: set[DeadLetter] = set()

    @property
    def dead(self) -> set[str]:
        """Return which messages were given up."""
        return {letter.number for letter in self.dead_letters}

    def read(self) -> tuple[Counter[str], Counter[str]]:
        """Return how often each message was begun and finished."""
        counts: dict[str, Counter[str]] = {"start": Counter(), "end": Counter()}
        for line in read_lines(self._path):
            what, number, _ = line.split()
            counts[what][number] += 1
        return counts["start"], counts["end"]

    def settled(self) -> bool:
        """Say whether each confirmed message was finished or dead-lettered."""
        _, ended = self.read()
        return self.confirmed <= ended.keys() | self.dead

    def judge(self, *, total: int | None, workers_that_ended: int) -> Verdict:
        """Count; ``total`` is what the effects with a key add up to, if that is known."""
        started, ended = self.read()
        twice = {number for number, times in ended.items() if times > 1}
        keyed = {number for number in ended if number.startswith("keyed")}
        sources = {letter.source: letter for letter in sorted(self.dead_letters)}
        first = {letter.number: letter for letter in sources.values()}
        return Verdict(
            confirmed=len(self.confirmed),
            processed=len(self.confirmed & ended.keys()),
            dead_lettered=len(self.dead),
            run_twice=len(twice - keyed),
            run_twice_with_key=len(twice & keyed),
            lost=len(self.confirmed - ended.keys() - self.dead),
            dead_lettered_without_a_run=len(self.dead - started.keys()),
            effect_difference=None if total is None else self._beyond(total, started, ended),
            workers_that_ended=workers_that_ended,
            dead_letters_repeated=len(self.dead_letters) - len(sources),
            dead_letters_of_copies=len(sources) - len(first),
            reasons=dict(Counter(letter.reason for letter in first.values())),
        )

    @staticmethod
    def _beyond(total: int, started: Counter[str], ended: Counter[str]) -> int:
        """The total is at least what was finished, at most what was begun, and never more."""
        least = sum(number.startswith("keyed") for number in ended)
        most = sum(number.startswith("keyed") for number in started)
        return min(0, total - least) + max(0, total - most)
