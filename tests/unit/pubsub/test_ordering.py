"""One ordering key, one message at a time; a failing message holds its key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convotic_pubsub.queue import Acknowledge, Lapse
from tests.unit.pubsub.test_subscription import Bench, turn

if TYPE_CHECKING:
    from convotic_pubsub.consume.delivery import Delivery


def bench_of(*messages: tuple[str, str]) -> Bench:
    """Deliver messages (id, key) to a consumer with room for all."""
    bench = Bench(concurrency=10, buffer_messages=10, enable_message_ordering=True)
    for message_id, key in messages:
        bench.deliver(message_id, key=key)
    return bench


def running(bench: Bench) -> list[str]:
    return [each.received.message_id for each in bench.dispatched]


def take(bench: Bench, message_id: str) -> Delivery:
    """Take the newest offer of a message."""
    found = [each for each in bench.dispatched if each.received.message_id == message_id]
    assert found[-1].check_out()
    return found[-1]


async def test_messages_of_one_key_run_one_after_the_other_and_other_keys_beside() -> None:
    """With ten places, a key takes one; messages without a key are free."""
    bench = bench_of(("1", "a"), ("2", "a"), ("3", "b"), ("4", ""), ("5", ""))
    assert running(bench) == ["1", "3", "4", "5"]

    bench.settle(bench.dispatched[0], Acknowledge())

    assert running(bench) == ["1", "3", "4", "5", "2"]


async def test_a_failing_message_holds_its_key_until_it_succeeds() -> None:
    """The next of the key waits over the failure's lapse and its second run."""
    bench = bench_of(("1", "a"), ("2", "a"))
    bench.settle(take(bench, "1"), Lapse(5))
    await turn()
    assert running(bench) == ["1"]

    bench.deliver("1", attempt=2, key="a")
    await turn()
    assert running(bench) == ["1", "1"]
    bench.settle(take(bench, "1"), Acknowledge())

    assert running(bench) == ["1", "1", "2"]


async def test_what_waits_behind_a_message_that_the_server_has_again_is_handed_back() -> None:
    """A lapse that brings no redelivery here: the key's order is the server's to keep."""
    bench = bench_of(("1", "a"), ("2", "a"), ("3", "b"))
    bench.settle(take(bench, "1"), Lapse(5))
    await turn()

    bench.advance(6)
    await turn()

    assert ("ack-2-1", 0) in bench.acker.deadlines
    assert running(bench) == ["1", "3"]


async def test_a_redelivered_head_stays_before_a_newer_message_of_its_key() -> None:
    """The head's history is read from the store meanwhile; the newer one must not overtake."""
    bench = Bench(concurrency=10, enable_message_ordering=True)
    bench.deliver("1", attempt=2, key="a")
    bench.deliver("2", key="a")
    await turn()

    assert running(bench) == ["1"]
