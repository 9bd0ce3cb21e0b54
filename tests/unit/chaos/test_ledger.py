"""The ledger of chaos finds what must never happen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.ledger import DeadLetter, Ledger, Verdict

LINES = """\
start keyed-1 1
end keyed-1 1
start plain-2 1
start plain-2 2
end plain-2 2
end plain-2 2
start failing-3 1
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Three messages, confirmed and settled: two done, one dead-lettered after a run."""
    path = tmp_path / "ledger.txt"
    path.write_text(LINES)
    ledger = Ledger(path)
    ledger.confirmed = {"keyed-1", "plain-2", "failing-3"}
    ledger.dead_letters = {DeadLetter("failing-3", "3", "30", "max-retries-exceeded")}
    return ledger


def judge(ledger: Ledger, total: int | None = 1, ended: int = 0) -> Verdict:
    return ledger.judge(total=total, workers_that_ended=ended)


def test_what_may_happen_holds(ledger: Ledger) -> None:
    """A message done twice without a key, and a dead letter after a run, keep the promise."""
    verdict = judge(ledger)

    assert ledger.settled()
    assert verdict.holds
    assert (verdict.processed, verdict.run_twice, verdict.dead_lettered) == (2, 1, 1)
    assert verdict.reasons == {"max-retries-exceeded": 1}


def test_a_lost_message_does_not_hold(ledger: Ledger) -> None:
    """Confirmed, and neither finished nor dead-lettered."""
    ledger.confirmed.add("keyed-9")

    assert not ledger.settled()
    assert judge(ledger).lost == 1
    assert not judge(ledger).holds


def test_a_message_given_up_without_a_run_does_not_hold(ledger: Ledger) -> None:
    """Whatever the reason on it."""
    ledger.dead_letters.add(DeadLetter("plain-7", "7", "70", "worker-lost"))

    assert judge(ledger).dead_lettered_without_a_run == 1
    assert not judge(ledger).holds


def test_reasons_are_counted_once_a_message(ledger: Ledger) -> None:
    """A dead letter that is read, written or whose message is published twice is named apart."""
    (first,) = ledger.dead_letters
    ledger.dead_letters |= {first, first._replace(copy="31"), first._replace(source="4", copy="40")}

    verdict = judge(ledger)

    assert verdict.holds
    assert (verdict.dead_letters_repeated, verdict.dead_letters_of_copies) == (1, 1)
    assert (verdict.dead_lettered, verdict.reasons) == (1, {"max-retries-exceeded": 1})


@pytest.mark.parametrize(("total", "difference"), [(0, -1), (1, 0), (2, 1), (None, None)])
def test_effects_with_a_key_count_once(
    ledger: Ledger, total: int | None, difference: int | None
) -> None:
    """The total lies between what was finished and what was begun; unknown without the store."""
    verdict = judge(ledger, total)

    assert verdict.effect_difference == difference
    assert verdict.holds is not bool(difference)


def test_a_worker_that_ended_does_not_hold(ledger: Ledger) -> None:
    """No fault of a part may end a worker."""
    assert not judge(ledger, ended=1).holds
