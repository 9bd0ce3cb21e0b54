"""HTTP/2 as bytes: frames to send that no library would send, and the frames that come back."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from hpack import Encoder

from convotic_emulator.grpc.frames import (
    END_HEADERS,
    END_STREAM,
    PREFACE,
    Kind,
    frame,
    settings_frame,
)
from tests.support.waiting import PATIENCE
from tests.unit.emulator.grpc.peer import request_headers

__all__ = ["BEGIN", "WHOLE", "Frame", "block", "call", "exchange", "frames_in", "raw_block"]

BEGIN = PREFACE + settings_frame({})
WHOLE = END_HEADERS | END_STREAM
_END = b"the  end"


class Frame(NamedTuple):
    """A frame that has come back."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def block(path: str = "/test.Echo/Same", **more: str) -> bytes:
    """Return a request's header block that needs no table."""
    return Encoder().encode(request_headers(path, **more))


def raw_block(*fields: tuple[str, str]) -> bytes:
    """Return a header block of exactly these fields."""
    return Encoder().encode(fields)


def call(stream: int, flags: int = END_HEADERS, path: str = "/test.Echo/Same") -> bytes:
    """Return the HEADERS of a call."""
    return frame(Kind.HEADERS, flags, stream, block(path))


async def exchange(port: int, data: bytes) -> bytes:
    """Return what a server sends until it closes, or has answered a ping behind ``data``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data + frame(Kind.PING, 0, 0, _END))
    received = b""
    try:
        async with asyncio.timeout(PATIENCE):
            while _END not in received and (part := await reader.read(65_536)):
                received += part
    except ConnectionError:
        pass
    writer.close()
    return received


def frames_in(data: bytes) -> list[Frame]:
    """Return the frames in some bytes."""
    found = []
    while data:
        length = int.from_bytes(data[:3], "big")
        found.append(
            Frame(data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length])
        )
        data = data[9 + length :]
    return found
