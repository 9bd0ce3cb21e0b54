"""RFC 9113 and RFC 7541, section by section: one row for each rule that a server must keep.

The rows cover h2spec's (https://github.com/summerwind/h2spec) and more, written as bytes and
what must come of them:

- ``GOAWAY``: the connection ends with an error code; another connection does not notice.
- ``RESET``: one stream ends with an error code; the next call on the connection is answered.
- ``SERVED``: nothing is refused; the next call on the connection is answered.
- ``ANSWERED``: the row's own call, on stream 1, is answered "hello", and the next call too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
from hpack import Decoder, Encoder

from convotic_emulator.grpc.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    PREFACE,
    ErrorCode,
    Kind,
    frame,
    header_frames,
    settings_frame,
    window_update,
)
from convotic_emulator.grpc.server import GrpcServer
from tests.unit.emulator.grpc.peer import Echo, Peer, framed, request_headers, started
from tests.unit.emulator.grpc.wire import (
    BEGIN,
    WHOLE,
    block,
    call,
    exchange,
    frames_in,
    raw_block,
)

PADDED, PRIORITY = 0x08, 0x20
PROTOCOL, FLOW, SIZE = (
    ErrorCode.PROTOCOL_ERROR,
    ErrorCode.FLOW_CONTROL_ERROR,
    ErrorCode.FRAME_SIZE_ERROR,
)
CLOSED, COMPRESSION = ErrorCode.STREAM_CLOSED, ErrorCode.COMPRESSION_ERROR
CALM, REFUSED = ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.REFUSED_STREAM

HELLO = framed(b"hello")
#: The stream of the call that must be answered at the end of a row.
LAST = 9_999


class Outcome(NamedTuple):
    """What must come of a row."""

    kind: str
    code: int = 0
    stream: int = 1


SERVED, ANSWERED = Outcome("served"), Outcome("answered")


def goaway(code: ErrorCode) -> Outcome:
    """The connection ends."""
    return Outcome("goaway", code)


def reset(code: ErrorCode, stream: int = 1) -> Outcome:
    """The stream ends."""
    return Outcome("reset", code, stream)


def data(stream: int = 1, payload: bytes = HELLO, flags: int = 0) -> bytes:
    """Return a DATA frame."""
    return frame(Kind.DATA, flags, stream, payload)


def headers(*fields: tuple[str, str], flags: int = END_HEADERS, stream: int = 1) -> bytes:
    """Return HEADERS of exactly these fields."""
    return frame(Kind.HEADERS, flags, stream, raw_block(*fields))


def request(stream: int = 1, flags: int = END_HEADERS, **more: str) -> bytes:
    """Return the HEADERS of a call with more fields."""
    return frame(Kind.HEADERS, flags, stream, block(**more))


def without(name: str) -> list[tuple[str, str]]:
    """Return a call's fields without one."""
    return [field for field in request_headers("/test.Echo/Same") if field[0] != name]


def replaced(name: str, value: str) -> list[tuple[str, str]]:
    """Return a call's fields with another value for one."""
    return [(n, value if n == name else v) for n, v in request_headers("/test.Echo/Same")]


ALL = request_headers("/test.Echo/Same")
RST = frame(Kind.RST_STREAM, 0, 1, bytes(4))
CONTINUATION = frame(Kind.CONTINUATION, END_HEADERS, 1, b"")
DEPENDS = bytes(3) + b"\x03\x10"  # on stream 3, with a weight

# Stream 1 in each state.
OPEN = call(1, path="/test.Echo/Stream")
HALF = call(1, path="/test.Echo/Never") + data(flags=END_STREAM)
CANCELLED = OPEN + RST
ENDED = call(1) + data(flags=END_STREAM)
REFUSED_BY_US = call(1, path="/no/Where")

ROWS: dict[str, tuple[bytes, Outcome]] = {
    # 3.4: the preface
    "3.4 preface and SETTINGS": (b"", SERVED),
    "3.4 first frame is PING": (b"!" + frame(Kind.PING, 0, 0, bytes(8)), goaway(PROTOCOL)),
    "3.4 first frame is a SETTINGS acknowledgement": (
        b"!" + frame(Kind.SETTINGS, ACK, 0),
        goaway(PROTOCOL),
    ),
    "3.4 first frame is HEADERS": (b"!" + call(1), goaway(PROTOCOL)),
    # 4.1: the frame's head
    "4.1 unknown type": (frame(0x77, 0, 0, b"?"), SERVED),
    "4.1 unknown type on a stream": (OPEN + frame(0x77, 0xFF, 1, b"?"), SERVED),
    "4.1 unknown flags": (frame(Kind.PING, 0xFE, 0, bytes(8)), SERVED),
    "4.1 unknown flags of DATA": (call(1) + data(flags=END_STREAM | 0xF6), ANSWERED),
    "4.1 reserved bit": (frame(Kind.PING, 0, 1 << 31, bytes(8)), SERVED),
    "4.1 reserved bit of a stream": (call(1) + data(1 | 1 << 31, HELLO, END_STREAM), ANSWERED),
    # 4.2: its size
    "4.2 DATA of 2^14 bytes": (call(1) + data(payload=framed(bytes(16_379))), SERVED),
    "4.2 DATA above our limit": (OPEN + data(payload=bytes(300_000)), goaway(SIZE)),
    "4.2 HEADERS above our limit": (
        frame(Kind.HEADERS, END_HEADERS, 1, bytes(300_000)),
        goaway(SIZE),
    ),
    "4.2 unknown type above our limit": (frame(0x77, 0, 0, bytes(300_000)), goaway(SIZE)),
    # 4.3: header blocks
    "4.3 broken block": (frame(Kind.HEADERS, END_HEADERS, 1, b"\xff" * 5), goaway(COMPRESSION)),
    "4.3 PRIORITY inside a block": (
        call(1, 0) + frame(Kind.PRIORITY, 0, 1, DEPENDS) + CONTINUATION,
        goaway(PROTOCOL),
    ),
    "4.3 another stream's HEADERS inside a block": (call(1, 0) + call(3), goaway(PROTOCOL)),
    "4.3 DATA inside a block": (call(1, 0) + data(), goaway(PROTOCOL)),
    "4.3 broken block of a closed stream": (
        REFUSED_BY_US + frame(Kind.HEADERS, WHOLE, 1, b"\xff" * 5),
        goaway(COMPRESSION),
    ),
    # 5.1: idle
    "5.1 idle: DATA": (data(), goaway(PROTOCOL)),
    "5.1 idle: RST_STREAM": (RST, goaway(PROTOCOL)),
    "5.1 idle: WINDOW_UPDATE": (window_update(1, 100), goaway(PROTOCOL)),
    "5.1 idle: CONTINUATION": (CONTINUATION, goaway(PROTOCOL)),
    "5.1 idle: PRIORITY": (frame(Kind.PRIORITY, 0, 1, DEPENDS), SERVED),
    "5.1 idle: HEADERS": (ENDED, ANSWERED),
    # open
    "5.1 open: DATA": (call(1) + data(payload=HELLO[:3]) + data(1, HELLO[3:], 1), ANSWERED),
    "5.1 open: HEADERS are trailers": (
        call(1) + data() + headers(("checksum", "1"), flags=WHOLE),
        ANSWERED,
    ),
    "5.1 open: PRIORITY": (OPEN + frame(Kind.PRIORITY, 0, 1, DEPENDS), SERVED),
    "5.1 open: WINDOW_UPDATE": (OPEN + window_update(1, 100), SERVED),
    "5.1 open: RST_STREAM": (CANCELLED, SERVED),
    "5.1 open: CONTINUATION": (OPEN + CONTINUATION, goaway(PROTOCOL)),
    # the client has half-closed
    "5.1 half-closed: DATA": (HALF + data(), reset(CLOSED)),
    "5.1 half-closed: HEADERS": (HALF + headers(("a", "b"), flags=WHOLE), reset(CLOSED)),
    "5.1 half-closed: CONTINUATION": (HALF + CONTINUATION, goaway(PROTOCOL)),
    "5.1 half-closed: PRIORITY": (HALF + frame(Kind.PRIORITY, 0, 1, DEPENDS), SERVED),
    "5.1 half-closed: WINDOW_UPDATE": (HALF + window_update(1, 100), SERVED),
    "5.1 half-closed: RST_STREAM": (HALF + RST, SERVED),
    # closed by the client's RST_STREAM
    "5.1 reset by the client: DATA": (CANCELLED + data(), goaway(CLOSED)),
    "5.1 reset by the client: HEADERS": (
        CANCELLED + headers(("a", "b"), flags=WHOLE),
        goaway(CLOSED),
    ),
    "5.1 reset by the client: CONTINUATION": (CANCELLED + CONTINUATION, goaway(PROTOCOL)),
    "5.1 reset by the client: PRIORITY": (
        CANCELLED + frame(Kind.PRIORITY, 0, 1, DEPENDS),
        SERVED,
    ),
    "5.1 reset by the client: WINDOW_UPDATE": (CANCELLED + window_update(1, 100), SERVED),
    "5.1 reset by the client: RST_STREAM": (CANCELLED + RST, SERVED),
    # closed by END_STREAM on both sides
    "5.1 closed: DATA": (ENDED + data(), goaway(CLOSED)),
    "5.1 closed: HEADERS": (ENDED + headers(("a", "b"), flags=WHOLE), goaway(CLOSED)),
    "5.1 closed: HEADERS of a request": (ENDED + call(1, WHOLE), goaway(CLOSED)),
    "5.1 closed: CONTINUATION": (ENDED + CONTINUATION, goaway(PROTOCOL)),
    "5.1 closed: PRIORITY": (ENDED + frame(Kind.PRIORITY, 0, 1, DEPENDS), ANSWERED),
    "5.1 closed: WINDOW_UPDATE": (ENDED + window_update(1, 100), ANSWERED),
    "5.1 closed: RST_STREAM": (ENDED + RST, ANSWERED),
    # reset by us: what was on its way is dropped
    "5.1 reset by us: DATA": (REFUSED_BY_US + data() * 3, SERVED),
    "5.1 reset by us: trailers": (REFUSED_BY_US + headers(("a", "b"), flags=WHOLE), SERVED),
    "5.1 reset by us: WINDOW_UPDATE": (REFUSED_BY_US + window_update(1, 100), SERVED),
    "5.1 reset by us: PRIORITY": (REFUSED_BY_US + frame(Kind.PRIORITY, 0, 1, DEPENDS), SERVED),
    "5.1 reset by us: RST_STREAM": (REFUSED_BY_US + RST, SERVED),
    "5.1 reset by us: DATA after its end": (
        REFUSED_BY_US + data(flags=END_STREAM) + data(),
        goaway(CLOSED),
    ),
    "5.1 reset by us: DATA after the client's RST_STREAM": (
        REFUSED_BY_US + RST + data(),
        goaway(CLOSED),
    ),
    # 5.1.1: identifiers
    "5.1.1 even": (call(2), goaway(PROTOCOL)),
    "5.1.1 descending": (
        call(5) + data(5, HELLO, END_STREAM) + call(3),
        goaway(PROTOCOL),
    ),
    "5.1.1 DATA of a skipped stream": (call(5) + data(3), goaway(CLOSED)),
    "5.1.1 skipping": (call(1) + data(flags=END_STREAM) + call(77), ANSWERED),
    # 5.1.2: concurrency
    "5.1.2 more than MAX_CONCURRENT_STREAMS": (
        b"".join(call(n, path="/test.Echo/Stream") for n in range(1, 2003, 2)) + RST,
        reset(REFUSED, 2001),
    ),
    # 5.3: priority (RFC 7540, 5.3.1)
    "5.3.1 HEADERS depend on themselves": (
        frame(Kind.HEADERS, END_HEADERS | PRIORITY, 1, b"\0\0\0\x01\x10" + block()),
        goaway(PROTOCOL),
    ),
    "5.3.1 PRIORITY depends on itself": (
        frame(Kind.PRIORITY, 0, 1, b"\0\0\0\x01\x10"),
        goaway(PROTOCOL),
    ),
    # 5.4.1, 5.5
    "5.4.1 GOAWAY precedes the close": (frame(Kind.PING, 0, 0, b"short"), goaway(SIZE)),
    "5.5 extension frame inside a block": (
        call(1, 0) + frame(0x77, 0, 1, b"?") + CONTINUATION,
        goaway(PROTOCOL),
    ),
    # 6.1: DATA
    "6.1 stream 0": (data(0), goaway(PROTOCOL)),
    "6.1 padding": (call(1) + data(1, b"\x03" + HELLO + bytes(3), PADDED | END_STREAM), ANSWERED),
    "6.1 nothing but padding": (
        call(1) + data(1, b"\x03" + bytes(3), PADDED) + data(flags=END_STREAM),
        ANSWERED,
    ),
    "6.1 padding of the payload's length": (
        call(1) + data(1, b"\x04abc", PADDED),
        goaway(PROTOCOL),
    ),
    "6.1 padding of nothing": (call(1) + data(1, b"", PADDED), goaway(PROTOCOL)),
    "6.1 empty": (call(1) + data(payload=b"") + data(flags=END_STREAM), ANSWERED),
    # 6.2: HEADERS
    "6.2 stream 0": (call(0), goaway(PROTOCOL)),
    "6.2 padding and priority": (
        frame(
            Kind.HEADERS, PADDED | PRIORITY | END_HEADERS, 1, b"\x04" + DEPENDS + block() + bytes(4)
        )
        + data(flags=END_STREAM),
        ANSWERED,
    ),
    "6.2 padding too long": (
        frame(Kind.HEADERS, PADDED | END_HEADERS, 1, b"\xff" + block()),
        goaway(PROTOCOL),
    ),
    "6.2 padding of nothing": (
        frame(Kind.HEADERS, PADDED | END_HEADERS, 1, b""),
        goaway(PROTOCOL),
    ),
    "6.2 priority cut off": (
        frame(Kind.HEADERS, PRIORITY | END_HEADERS, 1, b"\0\0\0"),
        goaway(PROTOCOL),
    ),
    # 6.3: PRIORITY
    "6.3 stream 0": (frame(Kind.PRIORITY, 0, 0, DEPENDS), goaway(PROTOCOL)),
    "6.3 length": (OPEN + frame(Kind.PRIORITY, 0, 1, bytes(4)), reset(SIZE)),
    "6.3 length on an idle stream": (frame(Kind.PRIORITY, 0, 1, bytes(6)), goaway(SIZE)),
    # 6.4: RST_STREAM
    "6.4 stream 0": (frame(Kind.RST_STREAM, 0, 0, bytes(4)), goaway(PROTOCOL)),
    "6.4 length": (OPEN + frame(Kind.RST_STREAM, 0, 1, bytes(3)), goaway(SIZE)),
    # 6.5: SETTINGS
    "6.5 acknowledgement with payload": (frame(Kind.SETTINGS, ACK, 0, bytes(6)), goaway(SIZE)),
    "6.5 on a stream": (frame(Kind.SETTINGS, 0, 1), goaway(PROTOCOL)),
    "6.5 length": (frame(Kind.SETTINGS, 0, 0, bytes(5)), goaway(SIZE)),
    "6.5 acknowledgement": (frame(Kind.SETTINGS, ACK, 0), SERVED),
    "6.5 empty": (settings_frame({}), SERVED),
    "6.5.2 ENABLE_PUSH of 0": (settings_frame({2: 0}), SERVED),
    "6.5.2 ENABLE_PUSH of 7": (settings_frame({2: 7}), goaway(PROTOCOL)),
    "6.5.2 INITIAL_WINDOW_SIZE": (settings_frame({4: 2**31 - 1}), SERVED),
    "6.5.2 INITIAL_WINDOW_SIZE too large": (settings_frame({4: 2**31}), goaway(FLOW)),
    "6.5.2 MAX_FRAME_SIZE": (settings_frame({5: 2**24 - 1}), SERVED),
    "6.5.2 MAX_FRAME_SIZE too small": (settings_frame({5: 2**14 - 1}), goaway(PROTOCOL)),
    "6.5.2 MAX_FRAME_SIZE too large": (settings_frame({5: 2**24}), goaway(PROTOCOL)),
    "6.5.2 HEADER_TABLE_SIZE": (settings_frame({1: 0}), SERVED),
    "6.5.2 MAX_CONCURRENT_STREAMS": (settings_frame({3: 0}), SERVED),
    "6.5.2 MAX_HEADER_LIST_SIZE": (settings_frame({6: 100}), SERVED),
    "6.5.2 unknown": (settings_frame({0xFF: 1}), SERVED),
    "6.5.3 bad value behind a good one": (
        frame(Kind.SETTINGS, 0, 0, settings_frame({4: 1})[9:] + settings_frame({4: 2**31})[9:]),
        goaway(FLOW),
    ),
    # 6.6: PUSH_PROMISE
    "6.6 from a client": (
        OPEN + frame(Kind.PUSH_PROMISE, END_HEADERS, 1, bytes(4) + block()),
        goaway(PROTOCOL),
    ),
    "6.6 on stream 0": (frame(Kind.PUSH_PROMISE, END_HEADERS, 0, bytes(4)), goaway(PROTOCOL)),
    # 6.7: PING
    "6.7 acknowledgement": (frame(Kind.PING, ACK, 0, bytes(8)), SERVED),
    "6.7 on a stream": (frame(Kind.PING, 0, 1, bytes(8)), goaway(PROTOCOL)),
    "6.7 length": (frame(Kind.PING, 0, 0, bytes(6)), goaway(SIZE)),
    "6.7 acknowledgement's length": (frame(Kind.PING, ACK, 0, bytes(9)), goaway(SIZE)),
    # 6.8: GOAWAY
    "6.8 from the client": (frame(Kind.GOAWAY, 0, 0, bytes(8) + b"bye"), SERVED),
    "6.8 on a stream": (frame(Kind.GOAWAY, 0, 1, bytes(8)), goaway(PROTOCOL)),
    "6.8 length": (frame(Kind.GOAWAY, 0, 0, bytes(7)), goaway(SIZE)),
    # 6.9: WINDOW_UPDATE
    "6.9 of the connection by nothing": (window_update(0, 0), goaway(PROTOCOL)),
    "6.9 of a stream by nothing": (OPEN + window_update(1, 0), reset(PROTOCOL)),
    "6.9 of an idle stream by nothing": (window_update(1, 0), goaway(PROTOCOL)),
    "6.9 length": (frame(Kind.WINDOW_UPDATE, 0, 0, bytes(3)), goaway(SIZE)),
    "6.9 length on a stream": (OPEN + frame(Kind.WINDOW_UPDATE, 0, 1, bytes(5)), goaway(SIZE)),
    "6.9 reserved bit": (frame(Kind.WINDOW_UPDATE, 0, 0, b"\x80\0\0\x01"), SERVED),
    "6.9.1 connection's window too large": (
        window_update(0, 2**31 - 1) + window_update(0, 2**31 - 1),
        goaway(FLOW),
    ),
    "6.9.1 stream's window too large": (OPEN + window_update(1, 2**31 - 1), reset(FLOW)),
    "6.9.1 half-closed stream's window too large": (
        HALF + window_update(1, 2**31 - 1),
        reset(FLOW),
    ),
    "6.9.1 more data than the stream's window": (
        call(1, path="/test.Echo/Slow") + data(payload=bytes(200_000)) * 11,
        reset(FLOW),
    ),
    "6.9.1 more data of closed streams than the connection's window": (
        REFUSED_BY_US + data(payload=bytes(200_000)) * 200,
        SERVED,
    ),
    "6.9.2 a change makes a stream's window too large": (
        OPEN + window_update(1, 2**31 - 1 - 65_535) + settings_frame({4: 70_000}),
        goaway(FLOW),
    ),
    "6.9.2 a change makes windows negative": (
        OPEN + data() + settings_frame({4: 0}) + settings_frame({4: 65_535}),
        SERVED,
    ),
    # 6.10: CONTINUATION
    "6.10 several": (
        frame(Kind.HEADERS, 0, 1, block()[:5])
        + frame(Kind.CONTINUATION, 0, 1, block()[5:9])
        + frame(Kind.CONTINUATION, 0, 1, b"")
        + frame(Kind.CONTINUATION, END_HEADERS, 1, block()[9:])
        + data(flags=END_STREAM),
        ANSWERED,
    ),
    "6.10 stream 0": (call(1, 0) + frame(Kind.CONTINUATION, END_HEADERS, 0), goaway(PROTOCOL)),
    "6.10 another stream": (
        call(1, 0) + frame(Kind.CONTINUATION, END_HEADERS, 3),
        goaway(PROTOCOL),
    ),
    "6.10 followed by DATA": (
        call(1, 0) + frame(Kind.CONTINUATION, 0, 1) + data(),
        goaway(PROTOCOL),
    ),
    "6.10 after END_HEADERS": (call(1) + CONTINUATION, goaway(PROTOCOL)),
    "6.10 after CONTINUATION with END_HEADERS": (
        call(1, 0) + CONTINUATION + CONTINUATION,
        goaway(PROTOCOL),
    ),
    "6.10 after DATA": (call(1) + data() + CONTINUATION, goaway(PROTOCOL)),
    "6.10 a block without end": (
        call(1, 0) + frame(Kind.CONTINUATION, 0, 1, bytes(16_000)) * 5,
        goaway(CALM),
    ),
    # 7: error codes
    "7 unknown code of RST_STREAM": (OPEN + frame(Kind.RST_STREAM, 0, 1, b"\0\0\0\xff"), SERVED),
    "7 unknown code of GOAWAY": (frame(Kind.GOAWAY, 0, 0, bytes(4) + b"\0\0\0\xff"), SERVED),
    # 8.1: messages
    "8.1 second HEADERS without END_STREAM": (
        call(1) + data() + headers(("checksum", "1")),
        reset(PROTOCOL),
    ),
    "8.1 pseudo-header in trailers": (
        call(1) + data() + headers((":path", "/"), flags=WHOLE),
        reset(PROTOCOL),
    ),
    "8.1 malformed trailers": (
        call(1) + data() + headers(("CHECKSUM", "1"), flags=WHOLE),
        reset(PROTOCOL),
    ),
    "8.1.1 content-length": (request(content_length="10") + data(flags=END_STREAM), ANSWERED),
    "8.1.1 content-length too small": (
        request(content_length="3") + data(flags=END_STREAM),
        reset(PROTOCOL),
    ),
    "8.1.1 content-length too large": (
        request(content_length="11") + data(flags=END_STREAM),
        reset(PROTOCOL),
    ),
    "8.1.1 content-length over several frames": (
        request(content_length="10") + data(payload=HELLO[:6]) + data(1, HELLO[5:], END_STREAM),
        reset(PROTOCOL),
    ),
    "8.1.1 content-length without a number": (request(content_length="ten"), reset(PROTOCOL)),
    "8.1.1 content-length and no data": (
        request(flags=WHOLE, content_length="10"),
        reset(PROTOCOL),
    ),
    # 8.2: fields
    "8.2.1 upper-case name": (headers(*ALL, ("X-Test", "1")), reset(PROTOCOL)),
    "8.2.1 space in a name": (headers(*ALL, ("x test", "1")), reset(PROTOCOL)),
    "8.2.1 colon in a name": (headers(*ALL, ("x:test", "1")), reset(PROTOCOL)),
    "8.2.1 empty name": (headers(*ALL, ("", "1")), reset(PROTOCOL)),
    "8.2.1 NUL in a value": (headers(*ALL, ("x-test", "a\0b")), reset(PROTOCOL)),
    "8.2.1 line break in a value": (headers(*ALL, ("x-test", "a\r\nb: c")), reset(PROTOCOL)),
    "8.2.1 space before a value": (headers(*ALL, ("x-test", " a")), reset(PROTOCOL)),
    "8.2.1 empty value": (headers(*ALL, ("x-test", "")) + data(flags=END_STREAM), ANSWERED),
    "8.2.1 spaces in a value": (
        headers(*ALL, ("x-test", "a b")) + data(flags=END_STREAM),
        ANSWERED,
    ),
    **{
        f"8.2.2 {name}": (headers(*ALL, (name, "x")), reset(PROTOCOL))
        for name in ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade")
    },
    "8.2.2 te other than trailers": (headers(*replaced("te", "gzip")), reset(PROTOCOL)),
    "8.2.2 no te": (headers(*without("te")) + data(flags=END_STREAM), ANSWERED),
    # 8.3: pseudo-header fields
    "8.3 unknown": (headers((":unknown", "1"), *ALL), reset(PROTOCOL)),
    "8.3 of a response": (headers((":status", "200"), *ALL), reset(PROTOCOL)),
    "8.3 behind others": (
        headers(*without(":path"), (":path", "/test.Echo/Same")),
        reset(PROTOCOL),
    ),
    "8.3.1 empty :path": (headers(*replaced(":path", "")), reset(PROTOCOL)),
    **{
        f"8.3.1 no {name}": (headers(*without(name)), reset(PROTOCOL))
        for name in (":method", ":scheme", ":path")
    },
    "8.3.1 no :authority": (headers(*without(":authority")) + data(flags=END_STREAM), ANSWERED),
    **{
        f"8.3.1 {name} twice": (headers((name, value), *ALL), reset(PROTOCOL))
        for name, value in ((":method", "POST"), (":scheme", "http"), (":path", "/"))
    },
    "8.3.1 malformed, and the rest of the request": (
        headers(*without(":path")) + data() + data(flags=END_STREAM),
        reset(PROTOCOL),
    ),
    # RFC 7541
    "HPACK 2.3.3 index beyond the table": (
        frame(Kind.HEADERS, WHOLE, 1, block() + b"\xff\x80\x01"),
        goaway(COMPRESSION),
    ),
    "HPACK 2.3.3 name's index beyond the table": (
        frame(Kind.HEADERS, WHOLE, 1, block() + b"\x7f\x80\x01\x01a"),
        goaway(COMPRESSION),
    ),
    "HPACK 4.2 size update behind a field": (
        frame(Kind.HEADERS, WHOLE, 1, block() + b"\x20"),
        goaway(COMPRESSION),
    ),
    "HPACK 4.2 size update ahead of all": (
        frame(Kind.HEADERS, END_HEADERS, 1, b"\x20" + block()) + data(flags=END_STREAM),
        ANSWERED,
    ),
    "HPACK 5.1 integer without end": (
        frame(Kind.HEADERS, WHOLE, 1, b"\x00\x7f" + b"\xff" * 20),
        goaway(COMPRESSION),
    ),
    "HPACK 5.2 string longer than the block": (
        frame(Kind.HEADERS, WHOLE, 1, block() + b"\x00\x05ab"),
        goaway(COMPRESSION),
    ),
    "HPACK 5.2 Huffman padding longer than 7 bits": (
        frame(
            Kind.HEADERS, WHOLE, 1, block() + b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"
        ),
        goaway(COMPRESSION),
    ),
    "HPACK 5.2 Huffman padding with zeros": (
        frame(Kind.HEADERS, WHOLE, 1, block() + b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"),
        goaway(COMPRESSION),
    ),
    "HPACK 5.2 Huffman string with EOS": (
        frame(
            Kind.HEADERS,
            WHOLE,
            1,
            block() + b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f",
        ),
        goaway(COMPRESSION),
    ),
    "HPACK 6.1 index 0": (frame(Kind.HEADERS, WHOLE, 1, block() + b"\x80"), goaway(COMPRESSION)),
    "HPACK 6.1 indexed": (
        frame(Kind.HEADERS, END_HEADERS, 1, block() + b"\x90") + data(flags=END_STREAM),
        ANSWERED,
    ),
    **{
        f"HPACK {section} {name}": (
            frame(Kind.HEADERS, END_HEADERS, 1, block() + field) + data(flags=END_STREAM),
            ANSWERED,
        )
        for section, name, field in (
            ("6.2.1", "literal that is kept", b"\x40\x01a\x01b"),
            ("6.2.1", "literal of an indexed name that is kept", b"\x7a\x01b"),
            ("6.2.2", "literal", b"\x00\x01a\x01b"),
            ("6.2.2", "literal of an indexed name", b"\x0f\x2b\x01b"),
            ("6.2.3", "literal that is never kept", b"\x10\x01a\x01b"),
            ("6.2.3", "literal of an indexed name that is never kept", b"\x1f\x2b\x01b"),
            ("5.2", "Huffman string", b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x9f"),
        )
    },
    "HPACK 6.3 size update above our limit": (
        frame(Kind.HEADERS, WHOLE, 1, b"\x3f\xe2\x1f" + block()),
        goaway(COMPRESSION),
    ),
    "HPACK 6.3 several size updates": (
        frame(Kind.HEADERS, END_HEADERS, 1, b"\x20\x3f\xe1\x1f" + block()) + data(flags=END_STREAM),
        ANSWERED,
    ),
    "HPACK 7.3 headers that swell": (
        frame(Kind.HEADERS, END_HEADERS, 1, Encoder().encode([("a", "x" * 3000)]) + b"\xbe" * 99),
        goaway(COMPRESSION),
    ),
}


@pytest.fixture
async def server() -> AsyncIterator[GrpcServer]:
    running, port = await started(Echo())
    running.port = port  # type: ignore[attr-defined]  # for the tests
    yield running
    await running.stop(0)


@pytest.mark.parametrize("name", ROWS)
async def test_a_rule(server: Any, name: str) -> None:
    """The row's bytes have the row's outcome, and no other connection notices."""
    sent, expected = ROWS[name]
    begin = PREFACE if sent.startswith(b"!") else BEGIN
    next_call = call(LAST) + data(LAST, framed(b"next"), END_STREAM)
    async with Peer(server.port) as other:
        received = frames_in(
            await exchange(server.port, begin + sent.removeprefix(b"!") + next_call)
        )
        assert (await other.call("/test.Echo/Same", b"still here")).messages == [b"still here"]

    goaways = [int.from_bytes(f.payload[4:8], "big") for f in received if f.kind == Kind.GOAWAY]
    resets = [
        (f.stream, int.from_bytes(f.payload, "big"))
        for f in received
        if f.kind == Kind.RST_STREAM and any(f.payload)
    ]
    bodies = {f.stream: f.payload for f in received if f.kind == Kind.DATA}
    assert goaways == ([expected.code] if expected.kind == "goaway" else [])
    assert resets == ([(expected.stream, expected.code)] if expected.kind == "reset" else [])
    assert (bodies.get(LAST) == framed(b"next")) is (expected.kind != "goaway")
    if expected.kind == "answered":
        assert bodies[1] == HELLO


def test_there_are_as_many_rows_as_google_s_emulator_passes_of_h2spec() -> None:
    """127 of the 133 that it does not hang in."""
    assert len(ROWS) > 127


async def test_every_settings_frame_is_acknowledged(server: Any) -> None:
    """Once, in their order (section 6.5.3)."""
    received = frames_in(await exchange(server.port, BEGIN + settings_frame({4: 1}) * 2))

    acks = [f for f in received if f.kind == Kind.SETTINGS and f.flags & ACK]
    assert [f.payload for f in acks] == [b""] * 3


async def test_a_ping_is_answered_with_its_payload(server: Any) -> None:
    """Section 6.7."""
    sent = BEGIN + frame(Kind.PING, 0, 0, b"12345678")

    received = frames_in(await exchange(server.port, sent))

    assert (Kind.PING, ACK, 0, b"12345678") in received


async def test_the_last_value_of_a_setting_counts(server: Any) -> None:
    """Windows of 1000, then of 3 bytes: three bytes come (sections 6.5.3 and 6.9.2)."""
    both = settings_frame({4: 1000})[9:] + settings_frame({4: 3})[9:]
    sent = BEGIN + frame(Kind.SETTINGS, 0, 0, both) + ENDED

    received = frames_in(await exchange(server.port, sent))

    assert [f.payload for f in received if f.kind == Kind.DATA] == [HELLO[:3]]


async def test_our_settings_are_announced(server: Any) -> None:
    """MAX_CONCURRENT_STREAMS among them (section 5.1.2)."""
    first = frames_in(await exchange(server.port, BEGIN))[0]

    settings = {
        int.from_bytes(first.payload[n : n + 2], "big"): int.from_bytes(
            first.payload[n + 2 : n + 6], "big"
        )
        for n in range(0, len(first.payload), 6)
    }
    assert first.kind == Kind.SETTINGS
    assert settings[3] == 1000
    assert settings[6] == 32 * 1024


@pytest.mark.parametrize("size", [10, 16_384, 16_385, 32_768, 50_000])
def test_headers_of_any_size_fit_the_peer_s_frames(size: int) -> None:
    """HEADERS, then CONTINUATION; END_HEADERS stands in the last, END_STREAM in the first."""
    whole = bytes(range(256)) * 200

    frames = frames_in(header_frames(7, END_STREAM, whole[:size], 16_384))

    assert b"".join(f.payload for f in frames) == whole[:size]
    assert max(len(f.payload) for f in frames) <= 16_384
    assert [f.kind for f in frames] == [1] + [9] * (len(frames) - 1)
    assert [bool(f.flags & END_HEADERS) for f in frames] == [False] * (len(frames) - 1) + [True]
    assert [bool(f.flags & END_STREAM) for f in frames] == [True] + [False] * (len(frames) - 1)


async def test_trailers_above_the_frame_limit_reach_the_client(server: Any) -> None:
    """A status with 80 KB of details takes several frames (section 4.2)."""
    received = frames_in(
        await exchange(
            server.port, BEGIN + call(1, path="/test.Echo/Details") + data(flags=END_STREAM)
        )
    )

    assert max(len(f.payload) for f in received) <= 16_384
    joined = b"".join(f.payload for f in received if f.kind in (Kind.HEADERS, Kind.CONTINUATION))
    fields: dict[Any, Any] = dict(Decoder(max_header_list_size=200_000).decode(joined))
    assert len(fields["detail-bin"]) > 80_000


async def test_details_above_the_client_s_limit_are_left_out(server: Any) -> None:
    """MAX_HEADER_LIST_SIZE: the status comes without them, and the connection stays."""
    limit = settings_frame({6: 16_384})
    sent = BEGIN + limit + call(1, path="/test.Echo/Details") + data(flags=END_STREAM)

    received = frames_in(await exchange(server.port, sent))

    joined = b"".join(f.payload for f in received if f.kind in (Kind.HEADERS, Kind.CONTINUATION))
    fields: dict[Any, Any] = dict(Decoder().decode(joined))
    assert fields["grpc-status"] == "9"
    assert "detail-bin" not in fields
