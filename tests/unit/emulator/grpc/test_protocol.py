"""The life of a connection: how it begins and ends, and that broken bytes harm no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convotic_emulator.grpc.frames import END_STREAM, Kind, frame, window_update
from convotic_emulator.grpc.server import GrpcServer
from tests.support.generated import patient
from tests.support.waiting import PATIENCE
from tests.unit.emulator.grpc.peer import Echo, Peer, framed, started
from tests.unit.emulator.grpc.wire import BEGIN, WHOLE, call


@pytest.fixture
async def server() -> AsyncIterator[GrpcServer]:
    running, port = await started(Echo())
    running.port = port  # type: ignore[attr-defined]  # for the tests
    yield running
    await running.stop(0)


async def test_a_call_after_the_goodbye_is_refused(server: Any) -> None:
    """REFUSED_STREAM: the client knows that nothing was done, and makes it elsewhere."""
    async with Peer(server.port) as peer:
        await peer.call("/test.Echo/Same", b"")
        [connection] = server._connections
        connection.leave()
        reader = peer._reader
        await peer.send_raw(call(3, WHOLE))
        received = b""
        while b"\x03\x00\x00\x00\x00\x03\x00\x00\x00\x07" not in received:
            async with asyncio.timeout(PATIENCE):
                received += await reader.read(1000)


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02", b"PRO"]
)
async def test_another_protocol_is_refused_in_readable_form(server: Any, data: bytes) -> None:
    """In a form that a browser and curl show."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)

    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 505 ")
    assert answer.endswith(b"This port speaks gRPC, over HTTP/2 without TLS.\n")
    writer.close()


async def test_a_connection_that_says_nothing(server: Any) -> None:
    """As a probe of the port makes one: nothing happens."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.close()
    await writer.wait_closed()


CONVERSATION = (
    BEGIN
    + call(1)
    + frame(Kind.DATA, END_STREAM, 1, framed(b"hello"))
    + call(3, path="/test.Echo/Stream")
    + window_update(3, 10)
    + frame(Kind.DATA, 0, 3, framed(b"1") + framed(b"2"))
    + frame(Kind.PING, 0, 0, bytes(8))
    + frame(Kind.DATA, END_STREAM, 3, framed(b"3"))
    + frame(Kind.RST_STREAM, 0, 1, bytes(4))
)
CHANGES = st.lists(
    st.tuples(st.integers(0, len(CONVERSATION) - 1), st.binary(max_size=4), st.integers(0, 4)),
    max_size=6,
)


@settings(patient, max_examples=60)
@given(changes=CHANGES, tail=st.binary(max_size=64))
def test_whatever_comes_the_server_serves_on(
    changes: list[tuple[int, bytes, int]], tail: bytes
) -> None:
    """Bytes of a conversation are changed, added and left out: only its own connection suffers."""
    data = bytearray(CONVERSATION)
    for place, added, removed in changes:
        data[place : place + removed] = added

    async def check() -> list[bytes]:
        server, port = await started(Echo())
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(bytes(data) + tail)
        writer.write_eof()
        async with Peer(port) as peer:
            answer = await peer.call("/test.Echo/Same", b"still here")
        writer.close()
        await server.stop(0)
        return answer.messages

    assert asyncio.run(check()) == [b"still here"]
