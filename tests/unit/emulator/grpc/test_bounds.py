"""A hostile or frozen client costs the server little memory, and the others little time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import socket
import statistics
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import pytest
from google.pubsub_v1.types import pubsub as t

from convotic_emulator.grpc.frames import (
    END_HEADERS,
    END_STREAM,
    ErrorCode,
    Kind,
    frame,
    reset_frame,
    settings_frame,
    window_update,
)
from convotic_emulator.grpc.server import GrpcServer
from convotic_emulator.grpc.status import CallError, Status
from convotic_emulator.server import EmulatorServer
from tests.support.waiting import PATIENCE, wait_until_async
from tests.unit.emulator.client import SUBSCRIPTION, Client
from tests.unit.emulator.grpc.peer import Echo, Peer, framed
from tests.unit.emulator.grpc.wire import BEGIN, WHOLE, block, call

MEGABYTE = 1_000_000


class Flooder(threading.Thread):
    """Sends ``data`` again and again, as fast as the server takes it."""

    def __init__(self, port: int, data: bytes, *, begin: bytes = b"", reads: bool) -> None:
        super().__init__(daemon=True)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        self._socket.connect(("127.0.0.1", port))
        self._socket.settimeout(0.02)
        self._data = data
        self._reads = reads
        self._ends = threading.Event()
        self.sent_bytes = 0
        self.is_cut_off = False
        self._socket.sendall(BEGIN + begin)

    def run(self) -> None:
        """Flood until it is stopped, or the server ends the connection."""
        left = memoryview(self._data)
        while not self._ends.is_set():
            left = left or memoryview(self._data)
            try:
                count = self._socket.send(left)
                left = left[count:]
                self.sent_bytes += count
            except TimeoutError:
                pass
            except OSError:
                self.is_cut_off = True
                return
            if self._reads:
                with contextlib.suppress(TimeoutError):
                    self._socket.recv(1 << 20)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self.join()
        self._socket.close()


async def stuck(server: Any) -> Any:
    """Return the server's one connection once it reads no more."""
    await wait_until_async(lambda: bool(server._connections))
    [connection] = server._connections
    connected = connection._transport.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    await wait_until_async(connection._is_stuck)
    return connection


def calls(path: str, behind: Callable[[int], bytes], *, flags: int = END_HEADERS) -> bytes:
    """Return many calls of a method, each with what stands behind its HEADERS."""
    headers = block(path)
    return b"".join(
        frame(Kind.HEADERS, flags, stream, headers) + behind(stream)
        for stream in range(1, 40_000, 2)
    )


PING = frame(Kind.PING, 0, 0, bytes(8))
UNREAD: dict[str, Callable[[], bytes]] = {
    "PING": lambda: PING * 10_000,
    "SETTINGS": lambda: settings_frame({4: 65_535}) * 10_000,
    "unknown methods": lambda: calls("/no/Where", lambda _: b"", flags=WHOLE),
    "failing calls": lambda: calls(
        "/test.Echo/Refuse", lambda stream: frame(Kind.DATA, END_STREAM, stream, framed(b""))
    ),
}


@pytest.mark.parametrize("kind", UNREAD)
async def test_a_client_that_reads_nothing_is_no_longer_read(server: Any, kind: str) -> None:
    """What waits to be sent to it stays below a few megabytes, however long it goes on."""
    with Flooder(server.port, UNREAD[kind](), reads=False) as flooder:
        connection = await stuck(server)
        sent = flooder.sent_bytes

        assert connection._transport.get_write_buffer_size() < 3 * MEGABYTE
        assert len(connection._buffer) < MEGABYTE
        async with Peer(server.port) as other:
            assert (await other.call("/test.Echo/Same", b"x")).messages == [b"x"]
        assert flooder.sent_bytes < sent + 20 * MEGABYTE  # the kernel's buffers


async def test_a_client_that_goes_on_not_reading_is_disconnected(echo: Echo) -> None:
    """After ``stuck_seconds``."""
    server = GrpcServer(echo.methods(), name="the test", stuck_seconds=0.2)
    port = await server.listen("127.0.0.1", 0)
    with Flooder(port, PING * 10_000, reads=False) as flooder:
        await wait_until_async(lambda: flooder.is_cut_off)
    await wait_until_async(lambda: not server.has_clients)
    await server.stop(0)


async def test_a_client_that_reads_again_is_served_on(server: Any) -> None:
    """Nothing is lost: every PING has its answer."""
    count = 300_000
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(BEGIN + PING * count)
    await stuck(server)

    received = 0
    async with asyncio.timeout(PATIENCE):
        while received < count * len(PING):
            received += len(await reader.read(1 << 20))

    assert received >= count * len(PING)
    writer.close()


async def test_compressed_messages_wait_compressed(server: Any, echo: Echo) -> None:
    """A gigabyte in a megabyte of gzip is unpacked a message at a time, as the handler reads."""
    message = framed(gzip.compress(bytes(2_900_000)), compressed=True)
    async with Peer(server.port) as peer:
        stream = await peer.begin("/test.Echo/Slow", grpc_encoding="gzip")
        for _ in range(300):
            await peer.send(stream, message)
        await echo.begun.wait()
        [connection] = server._connections
        await wait_until_async(lambda: connection.http2._held_bytes >= 300 * len(message))

        assert connection.http2._held_bytes < 2 * MEGABYTE


async def test_half_requests_are_bounded(server: Any) -> None:
    """The call that exceeds what a connection may hold ends; those before it go on."""
    half = b"\0" + (2_900_000).to_bytes(4, "big") + bytes(2_899_999)
    async with Peer(server.port) as peer:
        streams = [await peer.begin("/test.Echo/Same") for _ in range(50)]
        for stream in streams:
            await peer.send(stream, half)
            if peer.answers[stream].is_over:
                break
        last = await peer.end_of(stream)
        await peer.send(streams[0], b"x", ends=True)

        assert 30 < streams.index(stream) < 50
        assert last.status == Status.RESOURCE_EXHAUSTED
        assert len((await peer.end_of(streams[0])).messages[0]) == 2_900_000
        [connection] = server._connections
        assert connection.http2._held_bytes < 140 * MEGABYTE
    await wait_until_async(lambda: not server.has_clients)
    assert connection.http2._held_bytes == 0


#: In a process of its own: threads would take turns of 5 ms.
FLOOD = """
import pathlib, socket, sys, threading
connected = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def read():
    while connected.recv(1 << 20): pass
threading.Thread(target=read, daemon=True).start()
begin, data = (pathlib.Path(name).read_bytes() for name in sys.argv[2:])
connected.sendall(begin)
for n in range(10**9):
    connected.sendall(data)
    if n == 0: print(flush=True)
"""


@contextlib.asynccontextmanager
async def flood(port: int, begin: bytes, file: Path) -> AsyncIterator[None]:
    """Have a process send a file's bytes again and again."""
    first = file.with_suffix(".begin")
    first.write_bytes(begin)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        FLOOD,
        str(port),
        str(first),
        str(file),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        await process.wait()


FLOODS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "PING": ("", UNREAD["PING"]),
    "RST_STREAM": (
        "",
        lambda: calls("/test.Echo/Stream", lambda s: reset_frame(s, ErrorCode.CANCEL)),
    ),
    "WINDOW_UPDATE": (
        "/test.Echo/Flood",
        lambda: b"".join(
            window_update(stream, 1) + window_update(0, 1) for stream in range(1, 1999, 2)
        ),
    ),
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_leaves_time_for_others(server: Any, kind: str, tmp_path: Path) -> None:
    """A turn of the loop stays short, so that another's call of three turns takes under 20 ms.

    In time of the processor: other processes of a busy machine do not count.
    """
    path, make = FLOODS[kind]
    begin = b"".join(call(n, path=path) for n in range(1, 4001, 2)) if path else b""
    file = tmp_path / "flood"
    file.write_bytes(make())
    seconds = []
    async with Peer(server.port) as other, flood(server.port, BEGIN + begin, file):
        for _ in range(300):
            started_at = time.thread_time()
            await asyncio.sleep(0)
            seconds.append(time.thread_time() - started_at)
        assert (await other.call("/test.Echo/Same", b"x")).messages == [b"x"]

    assert statistics.median(seconds) < 0.006
    assert statistics.quantiles(seconds)[2] < 0.02


async def test_a_vanished_client_leaves_nothing_for_the_garbage_collector() -> None:
    """Its stream, call, connection and the response that it did not read are freed at once."""
    opened = framed(
        t.StreamingPullRequest.pb()(
            subscription=SUBSCRIPTION, stream_ack_deadline_seconds=600
        ).SerializeToString()
    )
    async with EmulatorServer() as server, Client(server) as client:
        await client.create(ack_deadline_seconds=600)
        for _ in range(5):
            await client.publish(*[bytes(100_000)] * 40)
        grpc_server: Any = server._server
        before = set(grpc_server._connections)
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(BEGIN + call(1, path="/google.pubsub.v1.Subscriber/StreamingPull"))
        writer.write(frame(Kind.DATA, 0, 1, opened))
        await wait_until_async(lambda: len(grpc_server._connections) > len(before))
        [connection] = grpc_server._connections - before
        await wait_until_async(lambda: connection.http2._unsent_bytes > 3 * MEGABYTE)
        gc.collect()
        gc.disable()
        try:
            [http_call] = connection.http2.calls.values()
            gone = [weakref.ref(connection), weakref.ref(connection.http2)]
            task = weakref.ref(http_call.task)
            connection, http_call = None, None
            writer.transport.abort()

            await wait_until_async(lambda: not any(ref() for ref in (*gone, task)))
        finally:
            gc.enable()


async def test_streams_that_are_not_read_share_a_bound() -> None:
    """Sixty streams of a connection on a large backlog hold a few megabytes."""
    async with EmulatorServer() as server, Client(server) as client:
        await client.create(ack_deadline_seconds=600)
        for _ in range(10):
            await client.publish(*[bytes(100_000)] * 40)
        opened = framed(
            t.StreamingPullRequest.pb()(
                subscription=SUBSCRIPTION, stream_ack_deadline_seconds=600
            ).SerializeToString()
        )
        grpc_server: Any = server._server
        before = set(grpc_server._connections)
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(BEGIN)
        for stream in range(1, 121, 2):
            writer.write(call(stream, path="/google.pubsub.v1.Subscriber/StreamingPull"))
            writer.write(frame(Kind.DATA, 0, stream, opened))
        await wait_until_async(lambda: len(grpc_server._connections) > len(before))
        [connection] = grpc_server._connections - before
        sender = connection.http2
        # A few hold responses that its client does not read, the more the sooner they came
        # together; the others wait until those are read.
        await wait_until_async(lambda: len(sender._blocked) + len(sender._drained) == 60)

        assert sender._drained
        assert sender._unsent_bytes < 13 * MEGABYTE
        writer.close()


def test_an_error_quotes_the_beginning_and_the_end_of_long_input() -> None:
    """The rule at the end of the text is kept."""
    error = CallError(Status.INVALID_ARGUMENT, f"Invalid name {'x' * 20_000}: use letters.")

    assert len(error.message) < 1000
    assert error.message.startswith("Invalid name xxx")
    assert error.message.endswith("xxx: use letters.")
