"""HTTP/2 frames: a head of nine bytes and a payload (RFC 9113, section 4)."""

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
    "ErrorCode",
    "Kind",
    "ProtocolError",
    "ReceiveWindow",
    "Setting",
    "data_frames",
    "frame",
    "parse_settings",
    "payload_of",
    "reset_frame",
    "settings_frame",
    "window_update",
]

#: What a client sends first.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: Length (8 + 16 bits), type, flags, stream.
HEAD = struct.Struct("!BHBBI")
HEAD_BYTES = HEAD.size

END_STREAM = ACK = 0x01
END_HEADERS = 0x04
_PADDED = 0x08
_PRIORITY = 0x20

#: Until the other side's settings say otherwise.
DEFAULT_FRAME_BYTES = 16_384
DEFAULT_WINDOW = 65_535
MAX_WINDOW = 2**31 - 1

_SETTING = struct.Struct("!HI")
_LARGEST_FRAME_BYTES = 2**24 - 1
_PRIORITY_BYTES = 5


class Kind:
    """Types of frames."""

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
    """Settings that matter here."""

    ENABLE_PUSH = 2
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
    """The other side broke a rule: the connection ends with ``code``, and says why."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
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


def window_update(stream: int, size: int) -> bytes:
    """Return a frame that lets the other side send ``size`` bytes more; 0 is the connection."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def reset_frame(stream: int, code: ErrorCode) -> bytes:
    """Return a frame that ends a call without an answer, or the rest of its request."""
    return frame(Kind.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


class ReceiveWindow:
    """How much the other side may send of a stream; 0 is the connection."""

    __slots__ = ("_credit", "_left", "_size", "_stream")

    def __init__(self, stream: int, size: int) -> None:
        self._stream = stream
        self._size = self._left = size
        #: What has come and was not granted again.
        self._credit = 0

    def take(self, size: int) -> None:
        """Count what has come.

        Raises:
            ProtocolError: it is more than was granted.
        """
        self._left -= size
        self._credit += size
        if self._left < 0:
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window allows")

    def grant(self) -> bytes:
        """Return a frame that grants what has come again, b"" while that is less than half."""
        if self._credit < self._size // 2:
            return b""
        credit, self._credit = self._credit, 0
        self._left += credit
        return window_update(self._stream, credit)


def settings_frame(settings: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    payload = b"".join(_SETTING.pack(key, value) for key, value in settings.items())
    return frame(Kind.SETTINGS, 0, 0, payload)


def parse_settings(payload: bytes) -> dict[int, int]:
    """Return the settings of a frame.

    Raises:
        ProtocolError: not whole, or a value that may not be.
    """
    if len(payload) % _SETTING.size:
        raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a broken length")
    settings = dict(_SETTING.iter_unpack(payload))
    if settings.get(Setting.INITIAL_WINDOW_SIZE, 0) > MAX_WINDOW:
        raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large")
    frame_bytes = settings.get(Setting.MAX_FRAME_SIZE, DEFAULT_FRAME_BYTES)
    if not DEFAULT_FRAME_BYTES <= frame_bytes <= _LARGEST_FRAME_BYTES:
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of its range")
    return settings


def payload_of(flags: int, payload: bytes, *, may_have_priority: bool = False) -> bytes:
    """Return the payload of a DATA or HEADERS frame without padding and priority.

    Raises:
        ProtocolError: there is more padding than payload.
    """
    start, end = 0, len(payload)
    if flags & _PADDED:
        start = 1
        end -= payload[0] if payload else 1
    if may_have_priority and flags & _PRIORITY:
        start += _PRIORITY_BYTES
    if start > end:
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "a frame is shorter than its padding")
    return payload[start:end]
