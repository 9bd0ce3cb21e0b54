"""What is said once, until it is over."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from convotic_pubsub.outage import Outage


def test_an_outage_begins_once_is_counted_and_ends_once() -> None:
    """Then the next one is news again."""
    outage = Outage()
    assert not outage.is_on
    assert outage.end() == 0

    assert [outage.miss(), outage.miss(times=3), outage.miss()] == [True, False, False]
    assert outage.is_on
    assert [outage.end(), outage.end()] == [5, 0]
    assert outage.miss()


def test_threads_together_see_one_beginning_and_one_end() -> None:
    """Whoever is first says it, and nothing is counted twice."""
    outage = Outage()
    with ThreadPoolExecutor(8) as pool:
        begins = list(pool.map(lambda _: outage.miss(), range(400)))
        ends = list(pool.map(lambda _: outage.end(), range(8)))

    assert sum(begins) == 1
    assert sorted(ends) == [0] * 7 + [400]
