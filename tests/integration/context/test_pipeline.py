"""The one connection that an event loop's coroutines share, and plain code's connections."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, NoScriptError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from convotic_celery.context import Store
from tests.support.waiting import wait_until_async


class Relay:
    """A server in front of Valkey: counts what arrives, and can keep answers or put in its own."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.address = ""
        self.connections = 0
        #: What clients have sent, a chunk each.
        self.chunks: list[bytes] = []
        self.keeps_answers = False
        self.instead = b""
        self.writers: list[asyncio.StreamWriter] = []
        self.tasks: list[asyncio.Task[None]] = []

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        self.tasks.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._path)
        back = asyncio.create_task(self._pass_back(server_reader, writer))
        with suppress(ConnectionError):
            while chunk := await reader.read(1 << 20):
                self.chunks.append(chunk)
                if self.instead:
                    writer.write(self.instead)
                elif not self.keeps_answers:
                    server_writer.write(chunk)
        server_writer.close()
        await back
        writer.transport.abort()

    async def _pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while chunk := await reader.read(1 << 20):
                writer.write(chunk)


@asynccontextmanager
async def relay_to(store_url: str, *, timeout_seconds: float = 5.0) -> AsyncIterator[Any]:
    """Give a relay and the pipeline of a store that goes through it."""
    relay = Relay(store_url.removeprefix("unix://").split("?")[0])
    server = await asyncio.start_server(relay.accept, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    store = Store(f"redis://127.0.0.1:{port}", timeout_seconds=timeout_seconds)
    try:
        yield relay, store.pipeline()
    finally:
        await store.aclose()
        server.close()
        for writer in relay.writers:
            writer.transport.abort()
        await asyncio.gather(*relay.tasks)


async def test_what_is_asked_in_one_turn_shares_writes(store_url: str, key_prefix: str) -> None:
    """A hundred coroutines share one connection and few writes, and each gets its own answer."""
    async with relay_to(store_url) as (relay, pipeline):
        await pipeline.call("PING")
        before = len(relay.chunks)

        answers = await asyncio.gather(
            *(pipeline.call("INCRBY", f"{key_prefix}{n}", n) for n in range(100))
        )

        assert answers == list(range(100))
        assert relay.connections == 1
        assert len(relay.chunks) <= before + 7


async def test_an_error_is_its_own_callers(store_url: str, key_prefix: str) -> None:
    """A refused command raises what redis-py names it; its neighbours have their answers."""
    async with relay_to(store_url) as (_, pipeline):
        answers = await asyncio.gather(
            pipeline.call("SET", f"{key_prefix}text", "ö"),
            pipeline.call("EVALSHA", "0" * 40, 0),
            pipeline.call("INCR", f"{key_prefix}text"),
            pipeline.call("GET", f"{key_prefix}text"),
            return_exceptions=True,
        )

    assert answers[0] == "OK"
    assert isinstance(answers[1], NoScriptError)
    assert type(answers[2]) is ResponseError
    assert answers[3] == "ö"


async def test_a_command_that_cant_be_sent_takes_nobodys_answer(store_url: str) -> None:
    """It raises, and the calls beside it get their own answers."""
    async with relay_to(store_url) as (_, pipeline):
        answers = await asyncio.gather(
            pipeline.call("ECHO", "before"),
            pipeline.call("ECHO", "\ud800"),
            pipeline.call("ECHO", "after"),
            return_exceptions=True,
        )

        assert answers[0] == "before"
        assert isinstance(answers[1], UnicodeEncodeError)
        assert answers[2] == "after"
        assert await pipeline.call("ECHO", "later") == "later"


async def test_a_server_that_hangs_up_fails_who_waits_and_nobody_after(store_url: str) -> None:
    """Calls whose answers are owed raise ConnectionError; the next one connects again."""
    async with relay_to(store_url) as (relay, pipeline):
        await pipeline.call("PING")
        relay.keeps_answers = True
        waiting = [asyncio.create_task(pipeline.call("PING")) for _ in range(3)]
        sent = len(relay.chunks)
        await wait_until_async(lambda: len(relay.chunks) > sent)
        relay.writers[0].transport.abort()

        failed = await asyncio.gather(*waiting, return_exceptions=True)
        relay.keeps_answers = False

        assert [type(error) for error in failed] == [RedisConnectionError] * 3
        assert await pipeline.call("PING") == "PONG"
        assert relay.connections == 2


async def test_a_silent_server_is_given_up_after_the_timeout(store_url: str) -> None:
    """The connection counts as dead for all who wait, and the next call makes a new one."""
    async with relay_to(store_url, timeout_seconds=3) as (relay, pipeline):
        await pipeline.call("PING")
        relay.keeps_answers = True

        with pytest.raises(RedisTimeoutError, match="3 s"):
            await pipeline.call("PING")
        relay.keeps_answers = False

        assert await pipeline.call("PING") == "PONG"
        assert relay.connections == 2


async def test_an_answer_that_was_there_in_time_counts(store_url: str) -> None:
    """A handler that blocks the loop for longer than the timeout costs no connection."""
    store = Store(store_url, timeout_seconds=2)
    pipeline = store.pipeline()
    connection = await pipeline.call("CLIENT", "ID")
    call = asyncio.create_task(pipeline.call("CLIENT", "ID"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    threading.Event().wait(2.2)

    assert await call == connection
    assert await pipeline.call("CLIENT", "ID") == connection
    await store.aclose()


async def test_a_cancelled_call_leaves_the_others_their_answers(store_url: str) -> None:
    """The answer of a caller that has gone is dropped, not given to the next."""
    async with relay_to(store_url) as (relay, pipeline):
        await pipeline.call("PING")
        gone = asyncio.create_task(pipeline.call("ECHO", "one"))
        kept = asyncio.create_task(pipeline.call("ECHO", "two"))
        await asyncio.sleep(0)
        gone.cancel()

        assert await kept == "two"
        assert await pipeline.call("ECHO", "three") == "three"
        assert relay.connections == 1


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 200 OK\r\n", b"+OK\r\n+OK\r\n", b"$1\r\n\xff\r\n"])
async def test_answers_that_cant_be_told_apart_end_the_connection(
    store_url: str, nonsense: bytes
) -> None:
    """What is no RESP, no UTF-8 or one answer too many never reaches a caller as its answer."""
    async with relay_to(store_url) as (relay, pipeline):
        await pipeline.call("PING")
        relay.instead = nonsense

        with suppress(InvalidResponse):
            await pipeline.call("PING")
        relay.instead = b""

        assert await pipeline.call("ECHO", "mine") == "mine"
        assert relay.connections == 2


async def test_closing_fails_who_waits(store_url: str) -> None:
    """And a later call works again."""
    async with relay_to(store_url) as (relay, pipeline):
        await pipeline.call("PING")
        relay.keeps_answers = True
        waiting = asyncio.create_task(pipeline.call("PING"))
        await asyncio.sleep(0)
        await pipeline.aclose()
        relay.keeps_answers = False

        with pytest.raises(RedisConnectionError):
            await waiting
        assert await pipeline.call("PING") == "PONG"


def test_plain_code_keeps_its_connections(store_url: str) -> None:
    """Calls in turn use one connection, also after a refusal; threads have their own."""
    store = Store(store_url)
    connections = store.connections()
    try:
        first = connections.call("CLIENT", "ID")
        with pytest.raises(NoScriptError):
            connections.call("EVALSHA", "0" * 40, 0)
        assert connections.call("CLIENT", "ID") == first

        seen: set[int] = set()
        barrier = threading.Barrier(4)

        def ask() -> None:
            barrier.wait()
            for _ in range(50):
                seen.add(connections.call("CLIENT", "ID"))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 <= len(seen) <= 4
    finally:
        store.close()


def test_a_killed_connection_is_replaced(store_url: str) -> None:
    """The call on it fails, and so does no later one: all that were free are closed with it."""
    store, other = Store(store_url), Store(store_url)
    connections = store.connections()
    try:
        number = connections.call("CLIENT", "ID")
        other.connections().call("CLIENT", "KILL", "ID", number)

        with pytest.raises(RedisConnectionError):
            connections.call("PING")

        assert connections.call("PING") == "PONG"
    finally:
        store.close()
        other.close()


def test_a_refusal_has_the_name_that_redis_py_gives_it(store_url: str) -> None:
    """READONLY is ReadOnlyError for plain code too."""
    store = Store(store_url)
    try:
        with pytest.raises(ReadOnlyError):
            store.connections().call(
                "EVAL", "return redis.error_reply('READONLY You can not write')", 0
            )
    finally:
        store.close()
