"""What breaks HTTP/2's rules ends its own connection, with the reason; the server serves on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from convotic_emulator.grpc.frames import (
    END_HEADERS,
    END_STREAM,
    PREFACE,
    ErrorCode,
    Kind,
    frame,
    settings_frame,
    window_update,
)
from convotic_emulator.grpc.server import GrpcServer
from tests.unit.emulator.grpc.peer import Echo, Peer, framed, request_headers, started

PADDED, PRIORITY = 0x08, 0x20
BEGIN = PREFACE + settings_frame({})
WHOLE = END_HEADERS | END_STREAM


def block(path: str = "/test.Echo/Same") -> bytes:
    """Return a header block that stands for itself."""
    return Encoder().encode(request_headers(path))


def call(stream: int, flags: int = END_HEADERS, path: str = "/test.Echo/Same") -> bytes:
    """Return the headers of a call."""
    return frame(Kind.HEADERS, flags, stream, block(path))


@pytest.fixture
async def server() -> AsyncIterator[GrpcServer]:
    running, port = await started(Echo())
    running.port = port  # type: ignore[attr-defined]  # for the tests
    yield running
    await running.stop(0)


async def answer_to(port: int, data: bytes) -> bytes:
    """Return all that a server answers until it closes, or has answered a ping behind ``data``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data + frame(Kind.PING, 0, 0, b"the  end"))
    received = b""
    try:
        async with asyncio.timeout(10):
            while b"the  end" not in received:
                part = await reader.read(65_536)
                if not part:
                    break
                received += part
    except ConnectionError:
        pass
    writer.close()
    return received


def frames_in(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Return kind, flags, stream and payload of each frame."""
    found = []
    while data:
        length = int.from_bytes(data[:3], "big")
        stream = int.from_bytes(data[5:9], "big")
        found.append((data[3], data[4], stream, data[9 : 9 + length]))
        data = data[9 + length :]
    return found


def goaway_of(data: bytes) -> tuple[int, str] | None:
    """Return code and reason of a GOAWAY."""
    for kind, _, _, payload in frames_in(data):
        if kind == Kind.GOAWAY:
            return int.from_bytes(payload[4:8], "big"), payload[8:].decode()
    return None


BROKEN = {
    "even stream": (call(2), ErrorCode.PROTOCOL_ERROR, "number 2"),
    "stream zero": (call(0), ErrorCode.PROTOCOL_ERROR, "number 0"),
    "data of no call": (frame(Kind.DATA, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR, "1 was never"),
    "reset of no call": (
        frame(Kind.RST_STREAM, 0, 7, bytes(4)),
        ErrorCode.PROTOCOL_ERROR,
        "7 was never",
    ),
    "padding too long": (
        call(1) + frame(Kind.DATA, PADDED, 1, b"\x05abc"),
        ErrorCode.PROTOCOL_ERROR,
        "padding",
    ),
    "no padding at all": (
        call(1) + frame(Kind.DATA, PADDED, 1, b""),
        ErrorCode.PROTOCOL_ERROR,
        "padding",
    ),
    "interrupted headers": (
        call(1, 0) + frame(Kind.DATA, 0, 1, b"x"),
        ErrorCode.PROTOCOL_ERROR,
        "interrupted",
    ),
    "another's continuation": (
        call(1, 0) + frame(Kind.CONTINUATION, END_HEADERS, 3, b""),
        ErrorCode.PROTOCOL_ERROR,
        "CONTINUATION",
    ),
    "continuation of nothing": (
        frame(Kind.CONTINUATION, END_HEADERS, 1, b""),
        ErrorCode.PROTOCOL_ERROR,
        "CONTINUATION",
    ),
    "headers without end": (
        call(1, 0) + frame(Kind.CONTINUATION, 0, 1, bytes(16_000)) * 5,
        ErrorCode.ENHANCE_YOUR_CALM,
        "headers are too large",
    ),
    "headers that swell": (
        frame(
            Kind.HEADERS,
            END_HEADERS,
            1,
            Encoder().encode([("a", "x" * 3000)]) + Encoder().encode([("a", "x" * 3000)])[-1:] * 99,
        ),
        ErrorCode.COMPRESSION_ERROR,
        "",
    ),
    "no header block": (
        frame(Kind.HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"),
        ErrorCode.COMPRESSION_ERROR,
        "",
    ),
    "push": (frame(Kind.PUSH_PROMISE, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR, "push"),
    "long ping": (frame(Kind.PING, 0, 0, bytes(9)), ErrorCode.FRAME_SIZE_ERROR, "PING"),
    "broken settings": (frame(Kind.SETTINGS, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR, "length"),
    "window setting too large": (
        settings_frame({4: 2**31}),
        ErrorCode.FLOW_CONTROL_ERROR,
        "INITIAL_WINDOW_SIZE",
    ),
    "frame setting too small": (
        settings_frame({5: 100}),
        ErrorCode.PROTOCOL_ERROR,
        "MAX_FRAME_SIZE",
    ),
    "window by nothing": (window_update(0, 0), ErrorCode.PROTOCOL_ERROR, "by nothing"),
    "broken window": (
        frame(Kind.WINDOW_UPDATE, 0, 0, bytes(3)),
        ErrorCode.FRAME_SIZE_ERROR,
        "WINDOW_UPDATE",
    ),
    "window too large": (window_update(0, 2**31 - 1), ErrorCode.FLOW_CONTROL_ERROR, "too large"),
    "call's window too large": (
        call(1, path="/test.Echo/Stream") + window_update(1, 2**31 - 1),
        ErrorCode.FLOW_CONTROL_ERROR,
        "too large",
    ),
    "large frame": (
        frame(Kind.DATA, 0, 1, bytes(300_000)),
        ErrorCode.FRAME_SIZE_ERROR,
        "300000 bytes",
    ),
    "more than the call's window": (
        call(1, path="/test.Echo/Slow") + frame(Kind.DATA, 0, 1, bytes(200_000)) * 11,
        ErrorCode.FLOW_CONTROL_ERROR,
        "more data",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_rule(server: Any, name: str) -> None:
    """GOAWAY says which; another connection does not notice."""
    data, code, reason = BROKEN[name]
    async with Peer(server.port) as other:
        goaway = goaway_of(await answer_to(server.port, BEGIN + data))

        assert goaway is not None
        assert goaway[0] == code, goaway
        assert reason in goaway[1]
        assert (await other.call("/test.Echo/Same", b"still here")).messages == [b"still here"]


HARMLESS = {
    "priority": frame(Kind.PRIORITY, 0, 1, bytes(5)),
    "an unknown frame": frame(0x77, 0xFF, 1, b"?"),
    "an unknown setting": settings_frame({99: 5}),
    "acknowledged settings": frame(Kind.SETTINGS, 1, 0),
    "a pong": frame(Kind.PING, 1, 0, bytes(8)),
    "goaway": frame(Kind.GOAWAY, 0, 0, bytes(8)),
    "a call that was reset": call(1) + frame(Kind.RST_STREAM, 0, 1, bytes(4)),
    "data after the answer": call(1, path="/no/Where") + frame(Kind.DATA, 0, 1, framed(b"x")) * 3,
    "a window of a call that is over": call(1, path="/no/Where") + window_update(1, 100),
    "trailers of a call that is over": call(1, path="/no/Where") + call(1, WHOLE),
    "no headers": frame(Kind.HEADERS, WHOLE, 1),
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_may_come_and_means_little(server: Any, name: str) -> None:
    """The call behind it on the same connection is answered."""
    data = BEGIN + HARMLESS[name] + call(3) + frame(Kind.DATA, END_STREAM, 3, framed(b"hello"))

    received = await answer_to(server.port, data)

    assert goaway_of(received) is None
    assert framed(b"hello") in [f[3] for f in frames_in(received) if f[0] == Kind.DATA]


async def test_padding_priority_and_headers_in_pieces(server: Any) -> None:
    """All that a HEADERS frame may have at once; trailers end a request too."""
    whole = block()
    padded = b"\x04" + bytes(5) + whole[:10] + bytes(4)
    data = (
        BEGIN
        + frame(Kind.HEADERS, PADDED | PRIORITY, 1, padded)
        + frame(Kind.CONTINUATION, 0, 1, whole[10:20])
        + frame(Kind.CONTINUATION, END_HEADERS, 1, whole[20:])
        + frame(Kind.DATA, PADDED, 1, b"\x03" + framed(b"hello") + bytes(3))
        + frame(Kind.HEADERS, WHOLE, 1, Encoder().encode([("checksum", "1")]))
    )

    received = await answer_to(server.port, data)

    assert framed(b"hello") in [f[3] for f in frames_in(received) if f[0] == Kind.DATA]


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
            async with asyncio.timeout(10):
                received += await reader.read(1000)


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02", b"PRO"]
)
async def test_who_speaks_something_else_is_told(server: Any, data: bytes) -> None:
    """In a form that a browser and curl show."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)

    async with asyncio.timeout(10):
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


@settings(max_examples=60, deadline=None)
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
