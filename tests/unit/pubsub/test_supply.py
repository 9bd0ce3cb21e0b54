"""How a consumer keeps itself supplied: what counts as full, and what waits too long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from convotic_pubsub.consume.delivery import State
from convotic_pubsub.consume.lease_timer import LeaseTimer
from convotic_pubsub.errors import MessageTooLarge
from convotic_pubsub.queue import Acknowledge, DeadLetter, Lapse, Return, Settlement
from tests.support.waiting import PATIENCE, wait_until_async
from tests.unit.pubsub.test_subscription import Bench, turn

if TYPE_CHECKING:
    from convotic_pubsub.consume.delivery import Delivery


@pytest.mark.parametrize("settlement", [Acknowledge(), Return()])
async def test_a_settlement_under_way_is_no_reason_for_a_fresh_stream(
    settlement: Settlement,
) -> None:
    """The server has room again when it answers: reopening would cost a call for each message."""
    bench = Bench(concurrency=1, buffer_messages=1)
    bench.deliver("1")
    bench.deliver("2")

    bench.settle(bench.run(), settlement)
    await turn()

    assert bench.source.outstanding == bench.source.limit
    assert not bench.subscription.is_exhausted(bench.source)
    bench.acker.confirm()
    assert (bench.source.outstanding, bench.source.leaving) == (1, 0)


async def test_an_ordinary_message_that_nobody_takes_goes_to_others() -> None:
    """Before its lease ends, not after 7 days; nothing is pulled until its consumer gets to it."""
    bench = Bench(
        concurrency=2, buffer_messages=0, ack_deadline_seconds=60, max_lease_seconds=7 * 86_400.0
    )
    bench.deliver("1")
    bench.deliver("2")

    bench.advance(60)
    await turn()

    assert bench.acker.deadlines == [("ack-1-1", 0), ("ack-2-1", 0)]
    assert not bench.subscription.may_pull()
    bench.subscription.resume()
    assert bench.subscription.may_pull()


async def test_an_ordinary_message_is_held_no_longer_than_its_longest_lease() -> None:
    """A hung task's message is delivered again in the end."""
    bench = Bench(ack_deadline_seconds=60, max_lease_seconds=3600.0)
    bench.deliver("1")
    delivery = bench.dispatched[0]
    assert delivery.check_out()

    bench.advance(7200)

    assert delivery.lapse_seen
    assert 3600.0 <= delivery.lease_until - 1000.0 <= 3601.0


async def test_a_key_that_waits_for_a_retry_stops_no_other_key() -> None:
    """What is behind it goes back; no place is taken, so pulling goes on."""
    bench = Bench(concurrency=2, ack_deadline_seconds=20, enable_message_ordering=True)
    bench.deliver("1", key="a")
    bench.settle(bench.run(), Lapse(600))
    await turn()
    bench.deliver("2", key="a")

    bench.advance(21)
    await turn()

    assert ("ack-2-1", 0) in bench.acker.deadlines
    assert bench.subscription.may_pull()


async def test_an_error_over_one_lease_costs_the_others_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The timer says it and goes on with this slot's other leases and with later slots."""
    bench = Bench(concurrency=3)
    for message_id in "123":
        bench.deliver(message_id)
    seen: list[str] = []
    all_seen = asyncio.Event()

    def look(delivery: Delivery, _now: float) -> None:
        seen.append(delivery.received.message_id)
        if len(seen) == 1:
            raise RuntimeError("as asked")
        if len(seen) == 3:
            all_seen.set()

    clock = asyncio.get_running_loop().time
    timer = LeaseTimer(clock, look)
    for delivery, after in zip(bench.dispatched, (0.0, 0.0, 0.2), strict=True):
        timer.watch(delivery, clock() + after)

    async with asyncio.timeout(PATIENCE):
        await all_seen.wait()

    assert sorted(seen) == ["1", "2", "3"]
    assert [getattr(each, "action", "") for each in caplog.records] == ["lease_failed"]


async def test_a_wait_of_more_than_ten_minutes_is_leased_again() -> None:
    """Pub/Sub grants 600 s at a time: 1,500 are three leases, and end to the second."""
    bench = Bench(ack_deadline_seconds=1500)
    bench.deliver("1")
    bench.settle(bench.run(), Lapse(1500))
    await turn()
    (delivery,) = bench.outstanding.values()

    bench.advance(1499)
    assert delivery.state is State.WAITING
    assert delivery.lease_until == 1000.0 + 1500
    assert [seconds for _, seconds in bench.acker.deadlines] == [600, 600, 330]
    bench.advance(1.2)

    assert not bench.outstanding
    assert len(bench.acker.deadlines) == 3


async def test_a_buffer_full_of_bytes_pulls_nothing_more() -> None:
    """Where the server ignores ``max_outstanding_bytes``, too; a place that is free is not room."""
    bench = Bench(concurrency=4, buffer_messages=4, buffer_bytes=2)
    bench.deliver("1")
    assert bench.subscription.free() == 7
    bench.deliver("2")  # a byte each

    assert bench.subscription.free() == 0
    bench.settle(bench.run(), Acknowledge())
    assert bench.subscription.free() == 7


async def test_what_another_lease_took_along_is_not_looked_at() -> None:
    """Two of one slot; the first one's end settles the second: it has no lease to renew."""
    bench = Bench(concurrency=2)
    for message_id in "12":
        bench.deliver(message_id)
    seen: list[Delivery] = []
    was_called = asyncio.Event()
    clock = asyncio.get_running_loop().time

    def look(delivery: Delivery, _now: float) -> None:
        seen.append(delivery)
        was_called.set()
        for other in bench.dispatched:
            timer.forget(other)

    timer = LeaseTimer(clock, look)
    for delivery in bench.dispatched:
        timer.watch(delivery, clock())

    async with asyncio.timeout(PATIENCE):
        await was_called.wait()
    await turn()

    assert len(seen) == 1


async def test_large_failed_messages_exhaust_a_stream_by_their_bytes() -> None:
    """Two that wait for their retry fill what the server may send, though not in number."""
    bench = Bench(concurrency=4, buffer_messages=4, buffer_bytes=2)
    for message_id in "12":  # a byte each
        bench.deliver(message_id)
        bench.settle(bench.run(), Lapse(30))
    await turn()

    assert bench.source.outstanding < bench.source.limit
    assert bench.subscription.free() > 0
    assert bench.subscription.is_outgrown(bench.source)


async def test_a_dead_letter_that_is_too_large_is_published_as_it_came() -> None:
    """The last resort fits always: the message was published once with these attributes."""
    bench = Bench()
    bench.publish_errors = [MessageTooLarge("by 7 bytes")]
    bench.deliver("1")

    bench.settle(bench.run(), DeadLetter({"convotic-dead-letter-reason": "rejected"}))
    await wait_until_async(lambda: bench.dead_lettered)

    assert [dict(each.attributes) for each in bench.published] == [
        {"convotic-dead-letter-reason": "rejected"},
        {},
    ]
    assert bench.acker.acks == ["ack-1-1"]
