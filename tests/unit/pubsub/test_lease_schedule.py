"""When a lease is looked at, and what then happens: no run begins, or goes on, on a lost lease."""

from __future__ import annotations

import pytest

from convotic_pubsub.consume.delivery import Delivery, PullStream, State
from convotic_pubsub.consume.flow import Signal
from convotic_pubsub.consume.lease_schedule import LeaseSchedule
from convotic_pubsub.limits import lease_seconds
from convotic_pubsub.queue import Acknowledge, read_message
from tests.support.pubsub import make_spec
from tests.unit.pubsub.test_subscription import (
    Bench,
    make_bench_with_one_waiting,
    make_raw,
    turn,
)

#: Ack deadline of a handler, and after how long a message that no slot was free for goes back.
WAITS = [(1.0, 1.0), (5.0, 5.0), (9.5, 9.0), (10.0, 9.0), (30.0, 29.0), (600.0, 599.0)]


def make_delivery(**fields: float) -> Delivery:
    """Return a delivery of second 0 that waits for a slot."""
    raw = make_raw("1")
    delivery = Delivery(
        subscription=Bench().subscription,
        source=PullStream(limit=1),
        received=read_message("s", raw, redelivered=False),
        size=1,
        ack_id="ack",
        received_at=0.0,
        lease_until=0.0,
        state=State.BUFFERED,
    )
    for name, value in fields.items():
        setattr(delivery, name, value)
    return delivery


@pytest.mark.parametrize(("ack_deadline", "waits"), WAITS)
def test_what_waits_is_given_back_a_second_before_its_leases_end(
    ack_deadline: float, waits: float
) -> None:
    """And never later than its ack deadline; a lease has ten seconds at least."""
    schedule = LeaseSchedule(make_spec(ack_deadline_seconds=ack_deadline))
    delivery = make_delivery(lease_until=lease_seconds(ack_deadline))

    assert schedule.look(delivery, waits - 0.01) is Signal.RENEWAL_DUE
    assert schedule.renewal(delivery, waits - 0.01) == 0
    assert schedule.look(delivery, waits) is Signal.NOT_TAKEN
    assert schedule.next_look(delivery, waits - 0.01) == waits
    # Taken, and not started: its lease is left to end.
    assert schedule.look_at_taken(delivery, waits) is Signal.HOLD_ENDED


@pytest.mark.parametrize(
    ("ack_deadline", "looks"),
    [(5.0, 5.0), (10.0, 7.0), (30.0, 22.5), (600.0, 585.0), (1200.0, 585.0)],
)
def test_a_lease_is_looked_at_while_it_can_still_be_renewed(
    ack_deadline: float, looks: float
) -> None:
    """Though what waits is not renewed: that its run has begun may become known only then."""
    schedule = LeaseSchedule(make_spec(ack_deadline_seconds=ack_deadline))
    delivery = make_delivery(lease_until=lease_seconds(ack_deadline))

    assert schedule.next_look(delivery, 0.0) == looks


async def test_a_long_wait_is_renewed_and_ends_a_second_before_its_last_lease() -> None:
    """20 minutes are two leases; the last one ends with the wait or up to a second later."""
    bench, _ = make_bench_with_one_waiting(1200.5)
    waiting = list(bench.outstanding.values())[1]

    bench.advance(1199.9)
    assert waiting.state is State.BUFFERED
    assert 1200.5 <= waiting.lease_until - 1000.0 < 1201.5
    bench.advance(0.6)
    await turn()

    assert bench.acker.deadlines[-1] == ("ack-2-1", 0)


async def test_a_slot_that_is_free_in_the_leases_last_second_starts_no_run_on_it() -> None:
    """The message has gone back half a second before; the slot is for what is pulled next."""
    bench, running = make_bench_with_one_waiting(30)

    bench.advance(29.5)
    bench.settle(running, Acknowledge())
    await turn()

    assert [each.received.message_id for each in bench.dispatched] == ["1"]
    assert ("ack-2-1", 0) in bench.acker.deadlines
    assert bench.subscription.may_pull()


async def test_a_run_that_begins_just_before_keeps_its_lease() -> None:
    """A slot is free 1.1 s before the lease's end: it is renewed with a second left."""
    bench, running = make_bench_with_one_waiting(30)
    bench.advance(28.9)
    bench.settle(running, Acknowledge())
    delivery = bench.run()

    bench.advance(0.1)

    assert delivery.received.message_id == "2"
    assert bench.acker.deadlines[-1] == ("ack-2-1", 30)
    assert delivery.lease_until == 1000.0 + 29.0 + 30


async def test_a_run_that_outlasts_the_lease_its_message_came_with_is_renewed_in_time() -> None:
    """It waited for 20 s and runs for 20: nothing but the look at its lease says that it runs."""
    bench, running = make_bench_with_one_waiting(30)
    bench.advance(20)
    bench.settle(running, Acknowledge())
    delivery = bench.run()

    bench.advance(2.5)

    assert bench.acker.deadlines == [("ack-2-1", 30)]
    assert delivery.lease_until == 1000.0 + 22.5 + 30


async def test_a_run_that_gets_more_time_late_keeps_its_lease() -> None:
    """In the last second of its hold: that is noted at once, not when the lease has ended."""
    bench = Bench(ack_deadline_seconds=20)
    bench.deliver("1")
    delivery = bench.run()
    bench.advance(29)
    assert delivery.lease_until == delivery.hold_until

    bench.subscription.start(delivery, 60.0)
    bench.advance(0)

    assert delivery.lease_until > bench.now + 19
