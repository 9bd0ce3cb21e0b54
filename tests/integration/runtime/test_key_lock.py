"""Keys on a real Valkey: what has succeeded is skipped, and no key runs twice at a time."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from os import EX_OK
from typing import Any

import pytest
import pytest_asyncio
from celery.worker import state

from convotic_celery.context import Store
from convotic_celery.errors import InvalidMessage
from convotic_celery.runtime.delivery.settlement import Deferred, KeySucceeded
from convotic_celery.runtime.delivery.steps import drive_async, drive_sync
from convotic_celery.runtime.execution.deadline import RunDeadline
from convotic_celery.runtime.locks.key_lock import (
    HeldKeys,
    KeyLock,
    KeyStore,
    WaitLimits,
)
from convotic_celery.runtime.locks.renewer import HeldLock, LockRenewer
from convotic_celery.runtime.locks.scripts import CLAIM, RELEASE, RENEW
from convotic_celery.sdk.message import WorkerMessage
from tests.support.proxy import run_proxy
from tests.support.valkey import ValkeyOnSocket, run_valkey
from tests.support.waiting import wait_until, wait_until_async
from tests.unit.runtime.support import define


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyOnSocket]:
    with run_valkey() as running:
        yield running


@pytest_asyncio.fixture
async def keys(server: ValkeyOnSocket) -> AsyncIterator[KeyStore]:
    """Keys of this test alone."""
    store = Store(server.url)
    made = KeyStore(store, key_prefix=f"test-{uuid.uuid4().hex[:8]}:")
    yield made
    made.renewer.drop_all()  # else its thread renews in all later tests, of a server that is gone
    await store.aclose()
    store.close()


@pytest_asyncio.fixture
async def keys_of_another_worker(server: ValkeyOnSocket, keys: KeyStore) -> AsyncIterator[KeyStore]:
    """The same keys, over connections of their own."""
    store = Store(server.url)
    made = KeyStore(store, key_prefix=keys.prefix)
    yield made
    made.renewer.drop_all()
    await store.aclose()
    store.close()


#: Gives up at once.
IMPATIENT = WaitLimits(busy=0, place=0, store=0)


def make_message(data: object = None, **fields: Any) -> WorkerMessage[Any]:
    return WorkerMessage(
        **{
            "id": "m-1",
            "data": {"id": 7} if data is None else data,
            "attributes": {},
            "published_at": datetime.now(UTC),
            **fields,
        }
    )


def make_control() -> RunDeadline:
    return RunDeadline(30.0, lambda _: True)


def make_guard(keys: KeyStore, patience: WaitLimits | None = None, **options: Any) -> KeyLock:
    return KeyLock(define(**{"deduplicate": "data.id", **options}), keys, patience)


async def test_what_has_succeeded_is_skipped(keys: KeyStore) -> None:
    """Another message with the same key is a duplicate; another key is not."""
    guard, control = make_guard(keys), make_control()
    claim = await drive_async(guard.acquire(make_message(), control), keys)
    await drive_async(guard.complete(claim, control), keys)

    with pytest.raises(KeySucceeded):
        await drive_async(guard.acquire(make_message(id="m-2"), control), keys)
    await drive_async(guard.acquire(make_message({"id": 8}), control), keys)


async def test_what_has_failed_runs_again_at_once(keys: KeyStore) -> None:
    """Only a success is remembered; fencing tokens grow."""
    guard, first, second = make_guard(keys), make_control(), make_control()
    claim = await drive_async(guard.acquire(make_message(), first), keys)
    await drive_async(guard.release(claim), keys)

    await drive_async(guard.acquire(make_message(), second), keys)

    assert first.fencing_token is not None
    assert second.fencing_token == first.fencing_token + 1


async def test_a_busy_key_is_deferred(keys: KeyStore) -> None:
    """By its ack deadline: the other run will have ended."""
    guard = make_guard(keys, IMPATIENT, ack_deadline=20)
    await drive_async(guard.acquire(make_message(), make_control()), keys)

    with pytest.raises(Deferred) as caught:
        await drive_async(guard.acquire(make_message(), make_control()), keys)

    assert caught.value.delay_seconds == 20


async def test_nobody_waits_for_a_key_in_a_worker_that_stops(
    keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SIGTERM, for which Celery notes the exit code 0, the message is deferred at once."""
    guard = make_guard(keys, WaitLimits(busy=3600))
    await drive_async(guard.acquire(make_message(), make_control()), keys)
    monkeypatch.setattr(state, "should_stop", EX_OK)

    with pytest.raises(Deferred) as caught:
        await drive_async(guard.acquire(make_message(), make_control()), keys)

    assert caught.value.delay_seconds == 1


async def test_a_duplicate_waits_for_the_run_that_has_its_key(keys: KeyStore) -> None:
    """It is skipped as soon as that has succeeded, without another delivery."""
    guard, control = make_guard(keys), make_control()
    claim = await drive_async(guard.acquire(make_message(), control), keys)
    waiting = asyncio.create_task(
        drive_async(guard.acquire(make_message(id="m-2"), make_control()), keys)
    )
    await asyncio.sleep(0)

    await drive_async(guard.complete(claim, control), keys)

    with pytest.raises(KeySucceeded):
        await waiting


async def test_of_many_at_once_one_runs(keys: KeyStore) -> None:
    """Coroutines and threads alike: each key is run once, however many messages it has."""
    guard = make_guard(keys)
    runs: list[str] = []

    def take(number: int) -> None:
        control = make_control()
        try:
            claim = drive_sync(guard.acquire(make_message(id=f"m-{number}"), control), keys)
        except KeySucceeded:
            return
        runs.append("begin")
        runs.append("end")
        drive_sync(guard.complete(claim, control), keys)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)

    assert runs == ["begin", "end"]


async def test_a_cancelled_wait_frees_what_it_took(keys: KeyStore) -> None:
    """Its dedup key is free again, although it never got a place."""
    guard = make_guard(keys, concurrency_key="attributes.tenant")
    tenant = {"attributes": {"tenant": "a"}}
    await drive_async(guard.acquire(make_message(**tenant), make_control()), keys)
    second = make_message({"id": 8}, **tenant)
    waiting = asyncio.create_task(drive_async(guard.acquire(second, make_control()), keys))
    key = f"{keys.prefix}dedup:orders.new.shop:8"
    client = keys.asynchronous._store.async_client()
    plain = keys.synchronous._store.sync_client()
    await wait_until_async(lambda: bool(plain.exists(key)))

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not await client.exists(key)


async def test_a_concurrency_key_has_so_many_places(
    keys: KeyStore, keys_of_another_worker: KeyStore
) -> None:
    """Two run, one on each worker, the third is deferred; one that ends makes room."""
    here, there = keys, keys_of_another_worker
    guards = {
        each: make_guard(
            each, IMPATIENT, deduplicate=None, concurrency_key="data.id", concurrency_key_limit=2
        )
        for each in (here, there)
    }

    async def acquire(where: KeyStore) -> HeldKeys:
        return await drive_async(guards[where].acquire(make_message(), make_control()), where)

    claim = await acquire(here)
    await acquire(there)
    for each in (here, there):
        with pytest.raises(Deferred):
            await acquire(each)

    await drive_async(guards[here].release(claim), here)

    await acquire(there)


async def test_a_message_without_its_key_is_invalid(keys: KeyStore) -> None:
    """It could not be distinguished from any other."""
    with pytest.raises(InvalidMessage, match=r"data\.id can't be this"):
        await drive_async(make_guard(keys).acquire(make_message({}), make_control()), keys)


async def test_a_late_run_can_t_record_over_another_s(keys: KeyStore) -> None:
    """Fencing: who lost the key neither frees it nor marks it as done."""
    guard, control = make_guard(keys), make_control()
    late = await drive_async(guard.acquire(make_message(), control), keys)
    client = keys.asynchronous._store.async_client()
    await client.delete(f"{keys.prefix}dedup:orders.new.shop:7")  # as if it had expired
    await drive_async(guard.acquire(make_message(), make_control()), keys)
    token = await client.hget(f"{keys.prefix}dedup:orders.new.shop:7", "token")

    await drive_async(guard.complete(late, control), keys)

    assert await client.hgetall(f"{keys.prefix}dedup:orders.new.shop:7") == {
        "token": token,
        "fence": "2",
    }


async def test_a_success_is_forgotten_after_the_window(keys: KeyStore) -> None:
    """The key's time to live is the window."""
    guard, control = make_guard(keys, deduplicate_window=3600), make_control()
    claim = await drive_async(guard.acquire(make_message(), control), keys)
    await drive_async(guard.complete(claim, control), keys)

    client = keys.asynchronous._store.async_client()
    left = await client.ttl(f"{keys.prefix}dedup:orders.new.shop:7")

    assert 3590 < left <= 3600


#: Of locks that are renewed in a test: a busy machine may be late by a second.
LOCK_SECONDS = 3.0


def make_lock(keys: KeyStore, token: str, lost: list[bool]) -> HeldLock:
    return HeldLock(
        keys=(f"{keys.prefix}k", f"{keys.prefix}fence"),
        arguments=(token, str(int(LOCK_SECONDS * 1000))),
        renewal=RENEW,
        taking=CLAIM,
        freeing=RELEASE,
        on_lost=lambda: lost.append(True),
    )


def claim_as(keys: KeyStore, token: str, *, milliseconds: int = 3_000) -> str:
    """Take the key of :func:`make_lock`; say what the store answers."""
    names = [f"{keys.prefix}k", f"{keys.prefix}fence"]
    return str(keys.synchronous.run(CLAIM, names, token, str(milliseconds))[0])


def test_a_lock_is_renewed_until_it_is_dropped(keys: KeyStore) -> None:
    """Far beyond its time to live."""
    keeper = LockRenewer(keys.synchronous, lock_seconds=LOCK_SECONDS)
    claim_as(keys, "mine")
    lock = make_lock(keys, "mine", [])
    keeper.keep(lock)
    begun = lock.renewed_at
    wait_until(lambda: lock.renewed_at > begun + LOCK_SECONDS + 0.5)
    assert claim_as(keys, "other") == "busy"

    keeper.drop(lock)

    wait_until(lambda: claim_as(keys, "other") == "claimed")


def test_a_run_that_lost_its_lock_is_notified(keys: KeyStore) -> None:
    """Once; the run is stopped then."""
    lost: list[bool] = []
    claim_as(keys, "other", milliseconds=60_000)

    LockRenewer(keys.synchronous, lock_seconds=0.15).keep(make_lock(keys, "mine", lost))

    wait_until(lambda: lost)
    assert lost == [True]


def test_locks_that_the_store_has_lost_are_taken_again(
    keys: KeyStore, caplog: pytest.LogCaptureFixture
) -> None:
    """After an outage that was longer than their lives, say; with one line for all of them."""
    caplog.set_level("INFO", "convotic_celery.runtime.locks.renewer")
    lost: list[bool] = []
    keeper = LockRenewer(keys.synchronous, lock_seconds=LOCK_SECONDS)
    lock = make_lock(keys, "mine", lost)
    others = [replace(lock, keys=(f"{keys.prefix}{n}", lock.keys[1])) for n in range(2)]
    client = keys.synchronous._store.sync_client()

    with keeper._condition:  # so that they are due at once
        for each in (lock, *others):
            keeper.keep(each)

    def said() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.name.endswith(".renewer")]

    wait_until(lambda: len(said()) > 1)
    for each in (lock, *others):
        assert client.hget(each.keys[0], "token") == "mine"
    assert claim_as(keys, "other") == "busy"
    keeper.drop_all()
    assert lost == []
    begun, over = said()
    assert begun.startswith("The store has lost the lock of test-")
    assert over == "3 locks that the store had lost were taken again"


def test_many_locks_are_renewed_although_the_store_is_far_away(server: ValkeyOnSocket) -> None:
    """A hundred share a round trip of 90 ms: one by one they would take three of their lives."""
    with run_proxy(server.url.removeprefix("unix://").split("?")[0]) as proxy:
        store = Store(f"redis://{proxy.address}/0")
        keys = KeyStore(store, key_prefix=f"test-{uuid.uuid4().hex[:8]}:")
        lost: list[bool] = []
        names = [f"{keys.prefix}{number}" for number in range(100)]
        keeper = LockRenewer(keys.synchronous, lock_seconds=LOCK_SECONDS)
        locks = [replace(make_lock(keys, "mine", lost), keys=(name, "f")) for name in names]
        keys.synchronous.run_all([(CLAIM, lock.keys, lock.arguments) for lock in locks])
        begun = [lock.renewed_at for lock in locks]
        proxy.delay_seconds = 0.045

        for lock in locks:
            keeper.keep(lock)

        wait_until(lambda: min(lock.renewed_at for lock in locks) > max(begun) + LOCK_SECONDS + 0.1)
        assert keys.synchronous._store.sync_client().exists(*names) == 100
        assert not lost
        keeper.drop_all()
        store.close()


@pytest.fixture
def away() -> KeyStore:
    """A store whose server has ended."""
    with run_valkey() as server:
        url = server.url
    return KeyStore(Store(url, timeout_seconds=0.2), key_prefix="away:")


def test_while_the_store_is_unavailable_a_message_is_not_run(away: KeyStore) -> None:
    """It waits, with its lease held, and is deferred in the end."""
    held: list[float] = []

    def hold(seconds: float) -> bool:
        held.append(seconds)
        return True

    guard = make_guard(away, WaitLimits(store=0.05), ack_deadline=30)

    with pytest.raises(Deferred, match="the store is unavailable"):
        drive_sync(guard.acquire(make_message(), RunDeadline(30.0, hold)), away)

    assert held == [30.0]


def test_a_handler_may_run_without_the_store(away: KeyStore) -> None:
    """on_store_loss="run": unprotected, never skipped."""
    guard, control = make_guard(away, on_store_loss="run"), make_control()

    claim = drive_sync(guard.acquire(make_message(), control), away)
    drive_sync(guard.complete(claim, control), away)

    assert claim.dedup_key is None


def test_an_outage_is_said_once_and_counted(
    server: ValkeyOnSocket, caplog: pytest.LogCaptureFixture
) -> None:
    """Each message without protection, each key not freed and each renewal had a line."""
    caplog.set_level("INFO", "convotic_celery.runtime.locks.outage")
    with run_proxy(server.url.removeprefix("unix://").split("?")[0]) as proxy:
        store = Store(f"redis://{proxy.address}/0", timeout_seconds=2)
        keys = KeyStore(store, key_prefix=f"test-{uuid.uuid4().hex[:8]}:")
        keeper = LockRenewer(keys.synchronous, lock_seconds=0.3)
        guard = make_guard(keys, on_store_loss="run")
        held = [
            drive_sync(guard.acquire(make_message({"id": number}), make_control()), keys)
            for number in range(3)
        ]
        keys.renewer.drop_all()  # the other one's renewals are looked at
        keeper.keep(make_lock(keys, claim_as(keys, "mine"), []))

        proxy.refuse()
        for claim in held:
            drive_sync(guard.acquire(make_message(), make_control()), keys)
            drive_sync(guard.release(claim), keys)
        wait_until(lambda: keeper._outage._outage._missed >= 2)
        proxy.resume()
        drive_sync(
            guard.release(drive_sync(guard.acquire(make_message(), make_control()), keys)), keys
        )
        wait_until(lambda: "renewals" in caplog.text)
        keeper.drop_all()
        keys.renewer.drop_all()
        store.close()

    lines = [each.getMessage() for each in caplog.records if each.name.endswith(".outage")]
    queue = "orders.new.shop"
    for begun in (
        f"messages of {queue} run without protection: ",
        f"keys of {queue} are freed only when their locks expire: ",
        "locks of running messages are not renewed: ",
    ):
        beginning = f"While the store is unavailable, {begun}"
        assert sum(line.startswith(beginning) for line in lines) == 1, lines
    back = "The store answers again; meanwhile "
    assert f"{back}3 runs of {queue} had no protection" in lines
    assert f"{back}3 keys of {queue} were left until their locks expire" in lines
    assert len(lines) == 6
