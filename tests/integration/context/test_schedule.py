"""Delayed messages on a real Valkey: kept, cancelled, taken once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from convotic_celery.context import AsyncPubsub, Services, Store
from convotic_celery.context._async.schedule import AsyncSchedule
from convotic_celery.context.database import AsyncDatabase
from convotic_celery.context.keys import Keys
from convotic_celery.context.scheduled import ScheduledMessage
from convotic_celery.context.scripts import Script
from convotic_celery.errors import (
    EmptyMessage,
    InvalidDelay,
    InvalidField,
    NotSerializable,
    PublishRefused,
    StoreUnavailable,
)
from convotic_celery.testing.clock import MovingClock
from convotic_pubsub.outgoing import OutgoingMessage
from tests.integration.context.conftest import NoPublisher

TOPIC = "custom.orders.remind"
MESSAGE = OutgoingMessage(TOPIC, b"1", {}, "")


@pytest.fixture
def clock() -> MovingClock:
    return MovingClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def schedule(services: Services, clock: MovingClock) -> AsyncSchedule:
    """The services' schedule, by a clock that stands still."""
    services.async_schedule.now = services.sync_schedule.now = clock.now
    return services.async_schedule


@pytest.fixture
def pubsub(services: Services, schedule: AsyncSchedule) -> AsyncPubsub:
    """What publishes nothing itself."""
    del schedule
    return services.async_pubsub({"traceparent": "00-a"})


async def take(schedule: AsyncSchedule, token: str = "a") -> list[ScheduledMessage]:
    """Take all that is due."""
    return list((await schedule.take_due(token, limit=1_000)).messages)


async def test_message_is_taken_as_it_was_given(
    pubsub: AsyncPubsub, schedule: AsyncSchedule, clock: MovingClock
) -> None:
    """Not before it is due; with its attributes, ordering key and trace context."""
    content = {"data": {"id": "ä"}, "attributes": {"source": "shop"}, "ordering_key": "c-1"}
    schedule_id = await pubsub.publish(TOPIC, content, delay=timedelta(minutes=1))
    clock.advance(59.999)
    assert await take(schedule) == []

    clock.advance(0.001)

    (found,) = await take(schedule)
    attributes = {"source": "shop", "traceparent": "00-a"}
    assert found.message == OutgoingMessage(TOPIC, '{"id":"ä"}'.encode(), attributes, "c-1")
    assert (found.id, found.failures, found.is_optional) == (schedule_id, 0, False)


def test_plain_code_shares_the_schedule(services: Services, schedule: AsyncSchedule) -> None:
    """What it keeps it can cancel, and each is the same id."""
    del schedule
    pubsub = services.sync_pubsub()
    first, second = pubsub.publish_many(TOPIC, [{"data": 1}, {"data": 2}], delay=5)

    assert first != second
    assert pubsub.cancel(first)
    assert not pubsub.cancel(first)
    assert pubsub.cancel(second)


async def test_store_says_what_time_it_is(services: Services, store: Store) -> None:
    """Hosts whose clocks are wrong agree."""

    async def now() -> datetime:
        seconds, microseconds = await store.async_client().time()
        return datetime.fromtimestamp(seconds + microseconds / 1e6, UTC)

    schedule, margin = services.async_schedule, timedelta(milliseconds=1)
    before = await now()
    await schedule.add([MESSAGE], 100)
    after = await now()

    due_at = await schedule.next_due()
    assert due_at is not None
    assert before - margin <= due_at - timedelta(seconds=100) <= after + margin
    assert await take(schedule) == []


async def test_settled_message_is_gone(schedule: AsyncSchedule, store: Store) -> None:
    """Nothing of it is left in the store, but who watches."""
    (schedule_id,) = await schedule.add([MESSAGE], 0)
    await take(schedule)

    await schedule.settle([schedule_id])

    keys = [key async for key in store.async_client().scan_iter("*schedule*")]
    assert [key for key in keys if schedule_id in key] == []
    assert await schedule.next_due() is None


async def test_message_has_one_publisher_while_its_lock_lasts(
    schedule: AsyncSchedule, clock: MovingClock
) -> None:
    """Renewed it stays his; a killed one's is another's then."""
    (schedule_id,) = await schedule.add([MESSAGE], 0)
    assert len(await take(schedule, "killed")) == 1
    clock.advance(9.9)
    await schedule.renew("killed", [schedule_id])
    clock.advance(9.9)
    assert await take(schedule, "other") == []

    clock.advance(0.1)

    assert len(await take(schedule, "other")) == 1
    clock.advance(9.9)
    await schedule.renew("killed", [schedule_id])
    clock.advance(0.1)
    assert len(await take(schedule, "third")) == 1


async def test_cancelled_message_is_never_taken(
    pubsub: AsyncPubsub, schedule: AsyncSchedule, clock: MovingClock
) -> None:
    """True once; then there is nothing to cancel."""
    schedule_id = await pubsub.publish(TOPIC, data=1, delay=1)

    assert await pubsub.cancel(schedule_id)

    assert not await pubsub.cancel(schedule_id)
    clock.advance(60)
    assert await take(schedule) == []


async def test_what_was_taken_is_no_longer_cancelled_but_not_tried_again(
    pubsub: AsyncPubsub, schedule: AsyncSchedule, clock: MovingClock
) -> None:
    """It may be published already."""
    schedule_id = await pubsub.publish(TOPIC, data=1, delay=0)
    await take(schedule, "killed")

    assert not await pubsub.cancel(schedule_id)

    clock.advance(60)
    assert await take(schedule) == []


@pytest.mark.parametrize("is_certain", [True, False])
async def test_refused_message_can_be_cancelled(
    schedule: AsyncSchedule, clock: MovingClock, is_certain: bool
) -> None:
    """If it is certain that it was not published; it waits, with its failures counted."""
    (schedule_id,) = await schedule.add([MESSAGE], 0)
    (taken,) = await take(schedule)
    await schedule.postpone("a", taken, 5, is_certain=is_certain)
    assert await take(schedule) == []
    clock.advance(5)
    (again,) = await take(schedule)
    assert again.failures == 1
    await schedule.postpone("a", again, 5, is_certain=True)

    assert await schedule.cancel(schedule_id) is is_certain


async def test_cancelling_races_with_taking(schedule: AsyncSchedule) -> None:
    """Each message is either cancelled or taken, never both and never neither."""
    ids = await schedule.add([MESSAGE] * 200, 0)

    cancelling = asyncio.gather(*[schedule.cancel(schedule_id) for schedule_id in ids[::2]])
    taking = asyncio.gather(*[schedule.take_due(f"publisher-{n}", limit=5) for n in range(40)])
    cancelled, taken = await cancelling, await taking

    wanted = {schedule_id for schedule_id, done in zip(ids[::2], cancelled, strict=True) if done}
    found = [message.id for due in taken for message in due.messages]
    assert len(found) == len(set(found))
    assert not wanted & set(found)
    left = {message.id for message in await take(schedule)}
    assert wanted | set(found) | left == set(ids)


async def test_one_publisher_is_awake_for_the_next_message(
    schedule: AsyncSchedule, clock: MovingClock
) -> None:
    """Many workers don't come all at once; who is late is replaced by the others' usual look."""
    await schedule.add([MESSAGE], 0.5)

    first = await schedule.take_due("first", limit=10)
    second = await schedule.take_due("second", limit=10)
    again = await schedule.take_due("first", limit=10)

    assert (first.next_due_seconds, second.next_due_seconds) == (0.5, None)
    assert again.next_due_seconds == 0.5
    clock.advance(0.5)
    assert len(await take(schedule, "second")) == 1


async def test_take_is_bounded(schedule: AsyncSchedule) -> None:
    """In number and bytes; in the order in which they are due."""
    large = OutgoingMessage(TOPIC, b"1" * 9_000_000, {}, "")
    small = await schedule.add([MESSAGE] * 5, 0)
    await schedule.add([large] * 3, 0)

    first = await schedule.take_due("a", limit=4)
    second = await schedule.take_due("a", limit=10)
    third = await schedule.take_due("a", limit=10)

    assert [message.id for message in first.messages] == small[:4]
    assert first.next_due_seconds == 0
    assert (len(second.messages), len(third.messages)) == (3, 1)


@pytest.mark.parametrize(
    "delay", [-1, -0.001, float("nan"), float("inf"), timedelta(days=366), "10", True]
)
async def test_delay_that_is_none_is_refused(pubsub: AsyncPubsub, delay: Any) -> None:
    """With the rule."""
    with pytest.raises(InvalidDelay, match=r"number of seconds|0 to 365 days"):
        await pubsub.publish(TOPIC, data=1, delay=delay)


async def test_message_is_checked_before_it_is_kept(
    pubsub: AsyncPubsub, schedule: AsyncSchedule
) -> None:
    """As one that is published at once; of many, none is kept if one is refused."""
    with pytest.raises(NotSerializable):
        await pubsub.publish(TOPIC, data=b"raw", delay=1)
    with pytest.raises(EmptyMessage):
        await pubsub.publish(TOPIC, delay=1)
    with pytest.raises(PublishRefused, match="message 1"):
        await pubsub.publish_many(TOPIC, [{"data": 1}, {"data": b"raw"}], delay=1)
    with pytest.raises(PublishRefused, match=r"10,001 delayed .* at most 10,000"):
        await pubsub.publish_many(TOPIC, [{"data": 1}] * 10_001, delay=1)

    assert await schedule.next_due() is None


async def test_message_id_is_no_schedule_id(pubsub: AsyncPubsub) -> None:
    """A slip that would otherwise look like "too late"."""
    with pytest.raises(ValueError, match="can't be cancelled"):
        await pubsub.cancel("1234567890")
    assert not await pubsub.cancel("scheduled-0")


async def test_store_that_is_away_is_told() -> None:
    """A message that is not kept raises."""
    services = Services(Store("redis://127.0.0.1:1", timeout_seconds=0.2), NoPublisher())

    with pytest.raises(StoreUnavailable, match="does not answer"):
        await services.async_pubsub().publish(TOPIC, data=1, delay=1)
    await services.store.aclose()


class RepeatingDatabase(AsyncDatabase):
    """Runs every script twice, as if each first answer had been lost."""

    async def run(self, script: Script, keys: Sequence[str], *arguments: str) -> Any:
        await super().run(script, keys, *arguments)
        return await super().run(script, keys, *arguments)


async def test_lost_answers_change_nothing(
    services: Services, store: Store, key_prefix: str
) -> None:
    """Kept once, and a cancel whose answer was lost still says True."""
    database = RepeatingDatabase(store)
    schedule = AsyncSchedule(database, Keys(key_prefix), services.schedule_changed)

    first, second = await schedule.add([MESSAGE, MESSAGE], 0)
    assert await schedule.cancel(first)

    assert [message.id for message in await take(services.async_schedule)] == [second]


class OvertakenDatabase(AsyncDatabase):
    """Runs every script twice, and between the two a publisher takes what is due."""

    def __init__(self, store: Store, publisher: AsyncSchedule, *, settles: bool) -> None:
        super().__init__(store)
        self._publisher = publisher
        self._settles = settles

    async def run(self, script: Script, keys: Sequence[str], *arguments: str) -> Any:
        await super().run(script, keys, *arguments)
        taken = await take(self._publisher, "fast")
        if self._settles:
            await self._publisher.settle([message.id for message in taken])
        return await super().run(script, keys, *arguments)


async def test_repeated_call_does_not_end_a_publishers_lock(
    services: Services, store: Store, key_prefix: str
) -> None:
    """Another publisher would publish the message beside it."""
    database = OvertakenDatabase(store, services.async_schedule, settles=False)
    schedule = AsyncSchedule(database, Keys(key_prefix), services.schedule_changed)

    await schedule.add([MESSAGE], 0)

    assert await take(services.async_schedule, "other") == []


async def test_waiting_messages_are_listed_in_the_order_they_are_due(
    pubsub: AsyncPubsub, schedule: AsyncSchedule, clock: MovingClock
) -> None:
    """Page by page, with ties and with what was published between two pages; nothing is taken."""
    late = await pubsub.publish(TOPIC, data={"n": 9}, attributes={"a": "b"}, delay=90)
    early = await pubsub.publish_many(TOPIC, [{"data": n} for n in range(5)], delay=5)

    total, first = await schedule.list(limit=4)
    assert (total, len(first.items)) == (6, 4)
    _, second = await schedule.list(limit=4, cursor=first.next_cursor)

    assert [item.id for item in (*first.items, *second.items)] == [*sorted(early), late]
    assert second.next_cursor is None
    last = second.items[-1]
    assert (last.topic, last.data, last.attributes["a"]) == (TOPIC, '{"n":9}', "b")
    assert last.due_at == clock.now() + timedelta(seconds=90)
    assert not last.is_taken
    clock.advance(6)
    taken = await take(schedule)
    assert len(taken) == 5
    await schedule.settle([message.id for message in taken])
    total, rest = await schedule.list(cursor=first.next_cursor)
    assert (total, [item.id for item in rest.items]) == (1, [late])


async def test_a_list_has_the_beginning_of_large_data(
    pubsub: AsyncPubsub, schedule: AsyncSchedule
) -> None:
    """No character is halved; the message itself has all of it."""
    schedule_id = await pubsub.publish(TOPIC, data="ä" * 3_000, delay=60)

    _, page = await schedule.list()
    whole = await schedule.get(schedule_id)

    assert page.items[0].data == '"' + "ä" * 999
    assert page.items[0].is_cut
    assert whole is not None
    assert (whole.data, whole.size, whole.is_cut) == ('"' + "ä" * 3_000 + '"', 6_002, False)
    assert await pubsub.cancel(schedule_id)
    assert await schedule.get(schedule_id) is None


@pytest.mark.parametrize("arguments", [{"limit": 0}, {"limit": 1_001}, {"cursor": "5"}])
async def test_a_list_refuses_what_is_no_page(
    schedule: AsyncSchedule, arguments: dict[str, Any]
) -> None:
    """A limit out of bounds, and what no page has given as its cursor."""
    with pytest.raises(InvalidField):
        await schedule.list(**arguments)
