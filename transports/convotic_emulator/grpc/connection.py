"""One connection of HTTP/2: frames in, frames out, and the calls in between."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from hpack.exceptions import HPACKError

from convotic_emulator.grpc.call import RECEIVE_WINDOW, Call
from convotic_emulator.grpc.frames import (
    ACK,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEAD_BYTES,
    MAX_WINDOW,
    PREFACE,
    ErrorCode,
    Kind,
    ProtocolError,
    ReceiveWindow,
    Setting,
    frame,
    parse_settings,
    payload_of,
    reset_frame,
    settings_frame,
    window_update,
)
from convotic_emulator.grpc.headers import Request, RequestDecoder, refusal_headers, trailers
from convotic_emulator.grpc.status import Status

if TYPE_CHECKING:
    from convotic_emulator.grpc.server import GrpcServer

__all__ = ["Connection"]

logger = logging.getLogger(__name__)

#: Large requests come in few frames.
_MAX_FRAME_BYTES = 1 << 18
_MAX_HEADER_BYTES = 64 * 1024
#: For all calls of a connection together.
_CONNECTION_WINDOW = 16 << 20
_WINDOW_BYTES = 4
_PING_BYTES = 8
_ADVICE = b"This port speaks gRPC, over HTTP/2 without TLS.\n"
#: For a browser, or curl.
_NOT_HTTP_2 = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_ADVICE), _ADVICE)
)


class Connection(asyncio.Protocol):
    """What a client has connected to. Belongs to the event loop's thread."""

    def __init__(self, server: GrpcServer) -> None:
        self.loop = asyncio.get_running_loop()
        self.answer_headers = server.answer_headers
        self.max_request_bytes = server.max_request_bytes
        self._server = server
        self._methods = server.methods
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._has_begun = False
        self._decoder = RequestDecoder(_MAX_HEADER_BYTES)
        #: A header block that is not whole: stream, flags, and what has come of it.
        self._block: tuple[int, int, bytearray] | None = None
        self.calls: dict[int, Call] = {}
        self._last_stream = 0
        self._is_leaving = False
        self._receive_window = ReceiveWindow(0, _CONNECTION_WINDOW)
        #: What the client lets us send, of all calls together.
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.max_frame_bytes = DEFAULT_FRAME_BYTES
        self._is_paused = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the client's preface."""
        self._transport = cast("asyncio.Transport", transport)
        # asyncio does so for sockets that were made with the protocol's number only.
        connected: socket.socket = transport.get_extra_info("socket")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's
        """Cancel what nobody waits for any more."""
        self._transport = None
        self._server.remove(self)
        for call in list(self.calls.values()):
            call.end(None)

    def pause_writing(self) -> None:
        """Stop sending: the client does not read."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Go on sending."""
        self._is_paused = False
        self._tell_room()

    def data_received(self, data: bytes) -> None:
        """Handle all frames that are whole."""
        self._buffer += data
        try:
            if self._has_begun or self._begin():
                self._handle_frames()
                self._server.on_handled()
        except ProtocolError as error:
            self.close(error.code, str(error))
        except Exception as error:
            logger.exception("A connection failed.")
            self.close(ErrorCode.INTERNAL_ERROR, repr(error))

    # What calls use

    def write(self, data: bytes) -> None:
        """Send frames; nothing to who has gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def room(self, call: Call) -> int:
        """Return how many bytes of a message can be sent now."""
        return 0 if self._is_paused else min(self.window, call.window)

    def forget(self, stream: int) -> None:
        """Drop a call that has ended."""
        self.calls.pop(stream, None)

    # What the server uses

    def leave(self) -> None:
        """Take no more calls."""
        if self._has_begun and not self._is_leaving:
            self.write(_goaway(self._last_stream, ErrorCode.NO_ERROR, ""))
        self._is_leaving = True

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR, reason: str = "") -> None:
        """Send what is to be sent, and close."""
        if self._transport is not None and not self._transport.is_closing():
            if code is not ErrorCode.NO_ERROR:
                self.write(_goaway(self._last_stream, code, reason))
            self._transport.close()

    def abort(self) -> None:
        """Close, whatever is to be sent."""
        if self._transport is not None:
            self._transport.abort()

    # Inside

    def _begin(self) -> bool:
        """Take the preface; return whether it is whole. Whoever sends another is told so."""
        start = bytes(self._buffer[: len(PREFACE)])
        if not PREFACE.startswith(start):
            self.write(_NOT_HTTP_2)
            self.close()
            return False
        if len(start) < len(PREFACE):
            return False
        del self._buffer[: len(PREFACE)]
        self._has_begun = True
        settings = {
            Setting.INITIAL_WINDOW_SIZE: RECEIVE_WINDOW,
            Setting.MAX_FRAME_SIZE: _MAX_FRAME_BYTES,
            Setting.MAX_HEADER_LIST_SIZE: _MAX_HEADER_BYTES,
        }
        more = _CONNECTION_WINDOW - DEFAULT_WINDOW
        self.write(settings_frame(settings) + window_update(0, more))
        return True

    def _handle_frames(self) -> None:
        buffer = self._buffer
        start, end = 0, len(buffer)
        while end - start >= HEAD_BYTES:
            high, low, kind, flags, stream = HEAD.unpack_from(buffer, start)
            length = high << 16 | low
            if length > _MAX_FRAME_BYTES:
                raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"a frame has {length} bytes")
            body = start + HEAD_BYTES
            if end - body < length:
                break
            start = body + length
            self._handle(kind, flags, stream & MAX_WINDOW, bytes(buffer[body:start]))
        del buffer[:start]

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None and kind != Kind.CONTINUATION:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
        handle = _HANDLERS.get(kind)
        if handle is not None:  # others mean nothing here; after GOAWAY the client ends its calls
            handle(self, flags, stream, payload)

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        block = payload_of(flags, payload, may_have_priority=True)
        self._on_block(flags, stream, bytearray(block), flags)

    def _on_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        _, first_flags, begun = self._block
        self._on_block(flags, stream, begun + payload, first_flags)

    def _on_ping(self, flags: int, _stream: int, payload: bytes) -> None:
        if len(payload) != _PING_BYTES:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong length")
        if not flags & ACK:
            self.write(frame(Kind.PING, ACK, 0, payload))

    def _on_reset(self, _flags: int, stream: int, _payload: bytes) -> None:
        self._check_known(stream)
        if call := self.calls.get(stream):
            call.end(None)

    def _on_push_promise(self, _flags: int, _stream: int, _payload: bytes) -> None:
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "clients can't push")

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._check_known(stream)
        self._receive_window.take(len(payload))
        granted = self._receive_window.grant()
        if granted:
            self.write(granted)
        call = self.calls.get(stream)
        if call is not None:
            call.on_data(payload_of(flags, payload), len(payload))
            if flags & END_STREAM:
                call.on_end()

    def _on_block(self, flags: int, stream: int, block: bytearray, first_flags: int) -> None:
        """Take a header block, whole or not."""
        if len(block) > _MAX_HEADER_BYTES:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "the headers are too large")
        if not flags & END_HEADERS:
            self._block = stream, first_flags, block
            return
        self._block = None
        try:
            request = self._decoder.decode(bytes(block))
        except HPACKError as error:
            raise ProtocolError(ErrorCode.COMPRESSION_ERROR, str(error)) from error
        if stream > self._last_stream and stream % 2:
            self._last_stream = stream
            self._open(stream, request)
        elif stream == 0 or stream % 2 == 0:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"a call with the number {stream}")
        call = self.calls.get(stream)
        if call is not None and first_flags & END_STREAM:
            call.on_end()

    def _open(self, stream: int, request: Request) -> None:
        """Begin a call, or refuse it."""
        if self._is_leaving:
            self.write(reset_frame(stream, ErrorCode.REFUSED_STREAM))
            return
        method = self._methods.get(request.path)
        if request.refused_with:
            self._answer(stream, refusal_headers(request.refused_with))
        elif method is None:
            text = f"{request.path} is not supported by {self._server.name}."
            self._answer(stream, self.answer_headers + trailers(Status.UNIMPLEMENTED, text))
        else:
            self.calls[stream] = Call(self, stream, method, request)

    def _answer(self, stream: int, block: bytes) -> None:
        """Answer with headers only, whatever the rest of the request may be."""
        self.write(
            frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream, block)
            + reset_frame(stream, ErrorCode.NO_ERROR)
        )

    def _on_settings(self, flags: int, _stream: int, payload: bytes) -> None:
        if flags & ACK:
            return
        settings = parse_settings(payload)
        self.max_frame_bytes = settings.get(Setting.MAX_FRAME_SIZE, self.max_frame_bytes)
        window = settings.get(Setting.INITIAL_WINDOW_SIZE, self.initial_window)
        more, self.initial_window = window - self.initial_window, window
        for call in list(self.calls.values()) if more else ():
            call.on_window(more)
        self.write(frame(Kind.SETTINGS, ACK, 0))

    def _on_window(self, _flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != _WINDOW_BYTES:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong length")
        self._check_known(stream)
        size = int.from_bytes(payload, "big") & MAX_WINDOW
        if not size:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        if stream:
            if call := self.calls.get(stream):
                call.on_window(size)
            return
        self.window += size
        if self.window > MAX_WINDOW:
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "the window is too large")
        self._tell_room()

    def _tell_room(self) -> None:
        for call in list(self.calls.values()):
            call.on_room()

    def _check_known(self, stream: int) -> None:
        if stream > self._last_stream:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"the call {stream} was never begun")


_HANDLERS: dict[int, Callable[[Connection, int, int, bytes], None]] = {
    Kind.DATA: Connection._on_data,
    Kind.HEADERS: Connection._on_headers,
    Kind.RST_STREAM: Connection._on_reset,
    Kind.SETTINGS: Connection._on_settings,
    Kind.PUSH_PROMISE: Connection._on_push_promise,
    Kind.PING: Connection._on_ping,
    Kind.WINDOW_UPDATE: Connection._on_window,
    Kind.CONTINUATION: Connection._on_continuation,
}


def _goaway(last_stream: int, code: ErrorCode, reason: str) -> bytes:
    payload = last_stream.to_bytes(4, "big") + code.to_bytes(4, "big") + reason.encode()
    return frame(Kind.GOAWAY, 0, 0, payload)
