"""HTTP/2 frames as bytes: a head of nine bytes and a payload (RFC 9113, sections 4 and 6)."""

from __future__ import annotations

import struct
from enum import IntEnum

__all__ = [
    "ACK",
    "DEFAULT_FRAME_BYTES",
    "DEFAULT_WINDOW",
    "END_HEADERS",
    "END_STREAM",
    "HEAD",
    "HEAD_BYTES",
    "MAX_WINDOW",
    "PREFACE",
    "SETTING_BYTES",
    "ErrorCode",
    "Kind",
    "ProtocolError",
    "Setting",
    "StreamError",
    "data_frames",
    "frame",
    "goaway_frame",
    "header_frames",
    "parse_settings",
    "payload_of",
    "priority_of",
    "reset_frame",
    "settings_frame",
    "window_update",
]

#: The client's first bytes.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: Length (8 + 16 bits), type, flags, stream.
HEAD = struct.Struct("!BHBBI")
HEAD_BYTES = HEAD.size

END_STREAM = ACK = 0x01
END_HEADERS = 0x04
_PADDED = 0x08
_PRIORITY = 0x20

#: Until the peer's settings say otherwise.
DEFAULT_FRAME_BYTES = 16_384
DEFAULT_WINDOW = 65_535
#: Also the largest stream identifier.
MAX_WINDOW = 2**31 - 1

_SETTING = struct.Struct("!HI")
SETTING_BYTES = _SETTING.size
_LARGEST_FRAME_BYTES = 2**24 - 1
_PRIORITY_BYTES = 5
#: Error texts of ours travel in frames that every peer accepts.
_MAX_REASON_BYTES = 1000


class Kind:
    """Types of frames. No enum: looking up its members takes a tenth of a call's time."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Setting:
    """The settings that this server sends or reads."""

    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (RFC 9113, section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ProtocolError(Exception):
    """The peer broke a rule; the connection ends with ``code`` and the reason."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class StreamError(Exception):
    """The peer broke a rule that concerns one stream; only that stream ends."""

    def __init__(self, stream: int, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.stream = stream
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    length = len(payload)
    return HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream) + payload


def data_frames(stream: int, data: bytes, max_frame_bytes: int) -> bytes:
    """Return DATA frames, none with END_STREAM."""
    if len(data) <= max_frame_bytes:
        return frame(Kind.DATA, 0, stream, data)
    return b"".join(
        frame(Kind.DATA, 0, stream, data[start : start + max_frame_bytes])
        for start in range(0, len(data), max_frame_bytes)
    )


def header_frames(stream: int, flags: int, block: bytes, max_frame_bytes: int) -> bytes:
    """Return a header block as HEADERS with ``flags``, and as many CONTINUATION as it takes."""
    if len(block) <= max_frame_bytes:
        return frame(Kind.HEADERS, flags | END_HEADERS, stream, block)
    frames = [frame(Kind.HEADERS, flags, stream, block[:max_frame_bytes])]
    for start in range(max_frame_bytes, len(block), max_frame_bytes):
        end = start + max_frame_bytes
        last = END_HEADERS if end >= len(block) else 0
        frames.append(frame(Kind.CONTINUATION, last, stream, block[start:end]))
    return b"".join(frames)


def window_update(stream: int, size: int) -> bytes:
    """Return a frame that lets the peer send ``size`` bytes more; stream 0 is the connection."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def reset_frame(stream: int, code: ErrorCode) -> bytes:
    """Return a RST_STREAM frame."""
    return frame(Kind.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway_frame(last_stream: int, code: ErrorCode, reason: str = "") -> bytes:
    """Return a GOAWAY frame."""
    text = reason.encode(errors="replace")[:_MAX_REASON_BYTES]
    return frame(Kind.GOAWAY, 0, 0, last_stream.to_bytes(4, "big") + code.to_bytes(4, "big") + text)


def settings_frame(settings: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    payload = b"".join(_SETTING.pack(key, value) for key, value in settings.items())
    return frame(Kind.SETTINGS, 0, 0, payload)


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return a frame's settings in their order, in which they take effect (section 6.5.3).

    Raises:
        ProtocolError: a value is out of its range (section 6.5.2).
    """
    settings = list(_SETTING.iter_unpack(payload))
    for key, value in settings:
        if key == Setting.ENABLE_PUSH and value > 1:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
        if key == Setting.INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}")
        if key == Setting.MAX_FRAME_SIZE and not (
            DEFAULT_FRAME_BYTES <= value <= _LARGEST_FRAME_BYTES
        ):
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}")
    return settings


def payload_of(flags: int, payload: bytes, *, may_have_priority: bool = False) -> bytes:
    """Return the payload of a DATA or HEADERS frame without padding and priority.

    Raises:
        ProtocolError: there is more padding than payload.
    """
    if not flags & (_PADDED | _PRIORITY):
        return payload
    start, end = 0, len(payload)
    if flags & _PADDED:
        start = 1
        end -= payload[0] if payload else 1
    if may_have_priority and flags & _PRIORITY:
        start += _PRIORITY_BYTES
    if start > end:
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "a frame is shorter than its padding")
    return payload[start:end]


def priority_of(flags: int, payload: bytes) -> int | None:
    """Return the stream that the priority fields of HEADERS depend on, None without such."""
    if not flags & _PRIORITY:
        return None
    start = 1 if flags & _PADDED else 0
    return int.from_bytes(payload[start : start + 4], "big") & MAX_WINDOW
