"""HTTP/2 without sockets: frames to calls, and what calls send to frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hpack.exceptions import HPACKError

from convotic_emulator.grpc.call import RECEIVE_WINDOW, Call, Method
from convotic_emulator.grpc.frames import (
    ACK,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    MAX_WINDOW,
    ErrorCode,
    Kind,
    ProtocolError,
    Setting,
    StreamError,
    frame,
    goaway_frame,
    header_frames,
    parse_settings,
    payload_of,
    priority_of,
    reset_frame,
    settings_frame,
    window_update,
)
from convotic_emulator.grpc.headers import (
    HeaderDecoder,
    MalformedHeaders,
    Request,
    check_trailers,
    refusal_headers,
    trailers,
)
from convotic_emulator.grpc.rules import State, check_frame, is_accepted
from convotic_emulator.grpc.sending import Outlet, Sender
from convotic_emulator.grpc.status import CallError, Status
from convotic_emulator.grpc.windows import ReceiveWindow

__all__ = ["MAX_FRAME_BYTES", "MAX_STREAMS", "Http2", "Service"]

#: Calls of a connection at the same time. A client that wants more waits, or connects again; its
#: streams of many subscriptions must fit.
MAX_STREAMS = 1000
#: Large requests come in few frames.
MAX_FRAME_BYTES = 1 << 18
_MAX_HEADER_BYTES = 32 * 1024
#: For all calls of a connection together.
_CONNECTION_WINDOW = 16 << 20
#: Requests that are not complete, or not read, may take this much memory of a connection: several
#: of the largest at once.
_MAX_HELD_BYTES = 128 << 20
#: How many streams that we ended early are remembered. The client has long heard of older ones.
_MAX_RESET_STREAMS = 10_000
_GOODBYE = b"goodbye!"


@dataclass(frozen=True, slots=True)
class Service:
    """What a server's connections have in common."""

    #: By path.
    methods: Mapping[str, Method]
    #: Named where a method is unknown.
    name: str
    #: The header block that every answer begins with.
    answer_headers: bytes
    max_request_bytes: int
    #: A client that sends and does not read is disconnected after this long.
    stuck_seconds: float


@dataclass(slots=True)
class _Block:
    """A header block that is not complete."""

    stream: int
    ends_stream: bool
    data: bytearray


class Http2(Sender):
    """One connection's streams and windows."""

    def __init__(self, service: Service, outlet: Outlet) -> None:
        super().__init__(outlet)
        self.answer_headers = service.answer_headers
        self.max_request_bytes = service.max_request_bytes
        self._service = service
        self._decoder = HeaderDecoder(_MAX_HEADER_BYTES)
        self._block: _Block | None = None
        self.calls: dict[int, Call] = {}
        #: Streams that we ended before the client had sent all; oldest first.
        self._reset: dict[int, None] = {}
        self._last_stream = 0
        #: Identifiers that the newest stream skipped: never opened, and closed now.
        self._skipped = range(0)
        self.is_leaving = False
        self._is_drained = False
        self._receive_window = ReceiveWindow(0, _CONNECTION_WINDOW)
        self._held_bytes = 0
        # The client's settings.
        self.initial_window = DEFAULT_WINDOW
        self.max_frame_bytes = DEFAULT_FRAME_BYTES
        self.max_header_bytes = MAX_WINDOW

    # What the connection uses

    def begin(self) -> None:
        """Send our settings."""
        settings: dict[int, int] = {
            Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            Setting.INITIAL_WINDOW_SIZE: RECEIVE_WINDOW,
            Setting.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
            Setting.MAX_HEADER_LIST_SIZE: _MAX_HEADER_BYTES,
        }
        more = _CONNECTION_WINDOW - DEFAULT_WINDOW
        self.write(settings_frame(settings) + window_update(0, more))

    def handle(self, number: int, flags: int, stream: int, payload: bytes) -> None:
        """Handle a frame.

        Raises:
            ProtocolError: it breaks a rule, and the connection ends.
        """
        if self._block is not None and number != Kind.CONTINUATION:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
        handle = _HANDLERS.get(number)
        if handle is None:
            return  # an extension (section 5.5)
        try:
            if number > Kind.HEADERS or not stream:  # DATA and HEADERS have any length
                check_frame(number, flags, stream, len(payload))
            handle(self, flags, stream, payload)
        except StreamError as error:
            self._on_stream_error(error)

    def leave(self) -> None:
        """Take no more calls; the connection ends after those that run."""
        if not self.is_leaving:
            self.is_leaving = True
            # What the client sends after this PING's answer, it sends knowing of the GOAWAY.
            goaway = goaway_frame(self._last_stream, ErrorCode.NO_ERROR)
            self.write(goaway + frame(Kind.PING, 0, 0, _GOODBYE))

    def goaway(self, code: ErrorCode, reason: str) -> bytes:
        """Return the frame that ends the connection at once."""
        return goaway_frame(self._last_stream, code, reason)

    def end(self, error: CallError) -> None:
        """End all calls with a status."""
        for call in list(self.calls.values()):
            call.end(error)

    def detach(self) -> None:
        """End all calls: the client has gone. Holds the connection no longer."""
        for call in list(self.calls.values()):
            call.end(None)
        self._blocked.clear()
        self._outlet = None

    # What calls use

    def hold(self, size: int) -> bool:
        """Count what waits to be read; False if that is too much."""
        self._held_bytes += size
        return self._held_bytes <= _MAX_HELD_BYTES

    def forget(self, stream: int, *, is_complete: bool) -> None:
        """Drop a call that has ended."""
        if self.calls.pop(stream, None) is None:
            return
        if not is_complete:
            self._remember_reset(stream)
        if self._blocked:
            self.wake_blocked()  # it may have been woken in vain
        self._close_if_drained()

    # Inside

    def _state(self, stream: int) -> int:
        call = self.calls.get(stream)
        if call is not None:
            return State.HALF_CLOSED if call.has_ended else State.OPEN
        if stream in self._reset:
            return State.RESET
        return State.CLOSED if stream <= self._last_stream and stream % 2 else State.IDLE

    def _on_stream_error(self, error: StreamError) -> None:
        """End a stream; one that was never opened can't be reset (section 6.4)."""
        stream = error.stream
        if self._state(stream) == State.IDLE:
            raise ProtocolError(error.code, str(error)) from error
        self.write(reset_frame(stream, error.code))
        if call := self.calls.get(stream):
            call.end(None)

    def _remember_reset(self, stream: int) -> None:
        self._reset[stream] = None
        if len(self._reset) > _MAX_RESET_STREAMS:
            del self._reset[next(iter(self._reset))]

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._receive_window.take(len(payload))
        granted = self._receive_window.grant()
        if granted:
            self.write(granted)
        data = payload_of(flags, payload)
        if is_accepted(self._state(stream), Kind.DATA, stream):
            self.calls[stream].on_data(data, len(payload))
        if flags & END_STREAM:
            self._end_request(stream)

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        if priority_of(flags, payload) == stream:
            self._refuse_priority(stream)
        block = payload_of(flags, payload, may_have_priority=True)
        ends_stream = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            self._on_block(stream, block, ends_stream=ends_stream)
        else:
            self._block = _Block(stream, ends_stream, bytearray(block))

    def _on_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._block is None or self._block.stream != stream:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of no header block")
        block = self._block
        block.data += payload
        if len(block.data) > _MAX_HEADER_BYTES:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "the headers are too large")
        if flags & END_HEADERS:
            self._block = None
            self._on_block(block.stream, bytes(block.data), ends_stream=block.ends_stream)

    def _on_block(self, stream: int, block: bytes, *, ends_stream: bool) -> None:
        """Take a complete header block."""
        if len(block) > _MAX_HEADER_BYTES:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "the headers are too large")
        try:
            self._on_fields(stream, block, ends_stream=ends_stream)
        except HPACKError as error:
            raise ProtocolError(ErrorCode.COMPRESSION_ERROR, str(error)) from error
        except MalformedHeaders as error:
            raise StreamError(stream, ErrorCode.PROTOCOL_ERROR, str(error)) from error
        if ends_stream:
            self._end_request(stream)

    def _on_fields(self, stream: int, block: bytes, *, ends_stream: bool) -> None:
        """Take the fields of a request, or of its trailers. All must be decoded, used or not."""
        state = self._state(stream)
        if state == State.IDLE:
            self._number(stream)
            try:
                request = self._decoder.request(block)
            except MalformedHeaders:
                if not ends_stream:
                    self._remember_reset(stream)
                raise
            self._open(stream, request, ends_stream=ends_stream)
            return
        fields = self._decoder.decode(block)
        if stream in self._skipped:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"stream {stream} opens out of order")
        if is_accepted(state, Kind.HEADERS, stream):
            check_trailers(fields, ends_stream=ends_stream)

    def _number(self, stream: int) -> None:
        """Take the identifier of a new stream (section 5.1.1)."""
        if not stream % 2:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"a client opens stream {stream}")
        if stream > self._last_stream + 2:
            self._skipped = range(self._last_stream + 1 + self._last_stream % 2, stream, 2)
        self._last_stream = stream

    def _open(self, stream: int, request: Request, *, ends_stream: bool) -> None:
        """Begin a call, or refuse it."""
        method = self._service.methods.get(request.path)
        if self.is_leaving or len(self.calls) >= MAX_STREAMS:
            self._refuse(stream, b"", ErrorCode.REFUSED_STREAM, is_complete=ends_stream)
        elif request.refused_with:
            block = refusal_headers(request.refused_with)
            self._refuse(stream, block, ErrorCode.NO_ERROR, is_complete=ends_stream)
        elif method is None:
            text = f"{request.path} is not supported by {self._service.name}."
            error = CallError(Status.UNIMPLEMENTED, text)
            block = self.answer_headers + trailers(error.status, error.message)
            self._refuse(stream, block, ErrorCode.NO_ERROR, is_complete=ends_stream)
        else:
            self.calls[stream] = Call(self, stream, method, request)

    def _refuse(self, stream: int, block: bytes, code: ErrorCode, *, is_complete: bool) -> None:
        """Answer with header fields only, or none, whatever the rest of the request may be."""
        answer = b""
        if block:
            answer = header_frames(stream, END_STREAM, block, self.max_frame_bytes)
        if not block or not is_complete:
            answer += reset_frame(stream, code)
        if not is_complete:
            self._remember_reset(stream)
        self.write(answer)

    def _end_request(self, stream: int) -> None:
        """Note that the client sends no more."""
        if call := self.calls.get(stream):
            call.on_end()
        else:
            self._reset.pop(stream, None)

    def _on_priority(self, _flags: int, stream: int, payload: bytes) -> None:
        if int.from_bytes(payload[:4], "big") & MAX_WINDOW == stream:
            self._refuse_priority(stream)

    def _refuse_priority(self, stream: int) -> None:
        """Refuse what RFC 7540, section 5.3.1, forbade; RFC 9113 has dropped priorities."""
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"stream {stream} depends on itself")

    def _on_reset(self, _flags: int, stream: int, _payload: bytes) -> None:
        if is_accepted(self._state(stream), Kind.RST_STREAM, stream):
            if call := self.calls.get(stream):
                call.end(None)
            self._reset.pop(stream, None)

    def _on_push_promise(self, _flags: int, stream: int, _payload: bytes) -> None:
        is_accepted(self._state(stream), Kind.PUSH_PROMISE, stream)

    def _on_ping(self, flags: int, _stream: int, payload: bytes) -> None:
        if not flags & ACK:
            self.write(frame(Kind.PING, ACK, 0, payload))
        elif self.is_leaving and payload == _GOODBYE:
            self._is_drained = True
            self._close_if_drained()
        else:
            self.on_pong(payload)

    def _close_if_drained(self) -> None:
        """Close after GOAWAY once nothing runs and nothing is on its way."""
        if self._is_drained and not self.calls and self._outlet is not None:
            self._outlet.close()

    def _on_goaway(self, _flags: int, _stream: int, _payload: bytes) -> None:
        """Wait for the client to end its calls and to close."""

    def _on_settings(self, flags: int, _stream: int, payload: bytes) -> None:
        if flags & ACK:
            return
        for key, value in parse_settings(payload):
            if key == Setting.MAX_FRAME_SIZE:
                self.max_frame_bytes = value
            elif key == Setting.MAX_HEADER_LIST_SIZE:
                self.max_header_bytes = value
            elif key == Setting.INITIAL_WINDOW_SIZE:
                self._resize_windows(value)
        self.write(frame(Kind.SETTINGS, ACK, 0))

    def _resize_windows(self, window: int) -> None:
        more, self.initial_window = window - self.initial_window, window
        try:
            for call in list(self.calls.values()) if more else ():
                call.on_window(more)
        except StreamError as error:
            raise ProtocolError(error.code, str(error)) from error  # section 6.9.2

    def _on_window(self, _flags: int, stream: int, payload: bytes) -> None:
        size = int.from_bytes(payload, "big") & MAX_WINDOW
        if not size:
            reason = f"WINDOW_UPDATE of stream {stream} by nothing"
            if stream:
                raise StreamError(stream, ErrorCode.PROTOCOL_ERROR, reason)
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, reason)
        if stream:
            if is_accepted(self._state(stream), Kind.WINDOW_UPDATE, stream):
                self.calls[stream].on_window(size)
            return
        self.widen(size)


_HANDLERS: dict[int, Callable[[Http2, int, int, bytes], None]] = {
    Kind.DATA: Http2._on_data,
    Kind.HEADERS: Http2._on_headers,
    Kind.PRIORITY: Http2._on_priority,
    Kind.RST_STREAM: Http2._on_reset,
    Kind.SETTINGS: Http2._on_settings,
    Kind.PUSH_PROMISE: Http2._on_push_promise,
    Kind.PING: Http2._on_ping,
    Kind.GOAWAY: Http2._on_goaway,
    Kind.WINDOW_UPDATE: Http2._on_window,
    Kind.CONTINUATION: Http2._on_continuation,
}
