"""What a client may send, and when: the rules of RFC 9113, in one place.

Two tables: what each type of frame looks like (section 6), and which types are allowed in which
state of a stream (section 5.1). The header fields' rules (section 8) are in ``headers``.
"""

from __future__ import annotations

from dataclasses import dataclass

from convotic_emulator.grpc.frames import (
    ACK,
    SETTING_BYTES,
    ErrorCode,
    Kind,
    ProtocolError,
    StreamError,
)

__all__ = ["State", "check_frame", "is_accepted"]


class State:
    """A stream's state, as the server sees it. No enum, as Kind is none."""

    #: No HEADERS have opened it.
    IDLE = 0
    #: The client may send more of its request.
    OPEN = 1
    #: The client has sent its whole request; the answer is not complete.
    HALF_CLOSED = 2
    #: We ended it before the request was complete; what the client sent meanwhile is dropped.
    RESET = 3
    #: Both sides know that it is over.
    CLOSED = 4


@dataclass(frozen=True, slots=True)
class _Refusal:
    """How a frame is refused: it ends its stream, or the connection."""

    code: ErrorCode
    reason: str
    ends_connection: bool = True

    def error(self, kind: int, stream: int) -> ProtocolError | StreamError:
        reason = f"{_NAMES[kind]} on stream {stream}, {self.reason}"
        if self.ends_connection:
            return ProtocolError(self.code, reason)
        return StreamError(stream, self.code, reason)


_NAMES = {value: name for name, value in vars(Kind).items() if name.isupper()}
_ACCEPT, _DROP = True, False
_UNKNOWN = _Refusal(ErrorCode.PROTOCOL_ERROR, "which was never opened")
_LATE = _Refusal(ErrorCode.STREAM_CLOSED, "whose request has ended", ends_connection=False)
_CLOSED = _Refusal(ErrorCode.STREAM_CLOSED, "which is closed")
_PUSH = _Refusal(ErrorCode.PROTOCOL_ERROR, "but clients can't push")

_COLUMNS = (
    Kind.DATA, Kind.HEADERS, Kind.PRIORITY, Kind.RST_STREAM, Kind.PUSH_PROMISE, Kind.WINDOW_UPDATE
)  # fmt: skip
_ROWS: dict[int, tuple[bool | _Refusal, ...]] = {
    # state             DATA      HEADERS   PRIORITY RST_STREAM PUSH   WINDOW_UPDATE
    State.IDLE:        (_UNKNOWN, _ACCEPT,  _DROP,   _UNKNOWN,  _PUSH, _UNKNOWN),
    State.OPEN:        (_ACCEPT,  _ACCEPT,  _DROP,   _ACCEPT,   _PUSH, _ACCEPT),
    State.HALF_CLOSED: (_LATE,    _LATE,    _DROP,   _ACCEPT,   _PUSH, _ACCEPT),
    State.RESET:       (_DROP,    _DROP,    _DROP,   _ACCEPT,   _PUSH, _DROP),
    State.CLOSED:      (_CLOSED,  _CLOSED,  _DROP,   _DROP,     _PUSH, _DROP),
}  # fmt: skip
_STATES = {state: dict(zip(_COLUMNS, verdicts, strict=True)) for state, verdicts in _ROWS.items()}

#: Frames of the connection, which name stream 0; all other known ones name a stream.
_ON_CONNECTION = frozenset({Kind.SETTINGS, Kind.PING, Kind.GOAWAY})
_ON_EITHER = frozenset({Kind.WINDOW_UPDATE})
_LENGTHS = {Kind.PRIORITY: 5, Kind.RST_STREAM: 4, Kind.PING: 8, Kind.WINDOW_UPDATE: 4}
_GOAWAY_BYTES = 8


def is_accepted(state: int, kind: int, stream: int) -> bool:
    """Return whether a frame takes effect; False: it is dropped.

    Raises:
        ProtocolError: it may not come in this state, and the connection ends.
        StreamError: it may not come in this state, and the stream ends.
    """
    verdict = _STATES[state][kind]
    if isinstance(verdict, _Refusal):
        raise verdict.error(kind, stream)
    return verdict


def check_frame(kind: int, flags: int, stream: int, length: int) -> None:
    """Check a frame's stream and length, which do not depend on any state.

    Raises:
        ProtocolError: one is wrong, and the connection ends.
        StreamError: a PRIORITY has a wrong length.
    """
    if kind not in _ON_EITHER and (stream == 0) is not (kind in _ON_CONNECTION):
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"{_NAMES[kind]} on stream {stream}")
    if kind == Kind.SETTINGS:
        is_right = not length if flags & ACK else length % SETTING_BYTES == 0
    elif kind == Kind.GOAWAY:
        is_right = length >= _GOAWAY_BYTES
    else:
        is_right = length == _LENGTHS.get(kind, length)
    if not is_right:
        reason = f"{_NAMES[kind]} has {length} bytes"
        if kind == Kind.PRIORITY:
            raise StreamError(stream, ErrorCode.FRAME_SIZE_ERROR, reason)
        raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, reason)
