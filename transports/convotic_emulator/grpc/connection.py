"""One socket: bytes to HTTP/2 and back, a fair share of the loop, and a bound for what waits."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from convotic_emulator.grpc.frames import (
    HEAD,
    HEAD_BYTES,
    MAX_WINDOW,
    PREFACE,
    ErrorCode,
    Kind,
    ProtocolError,
)
from convotic_emulator.grpc.http2 import MAX_FRAME_BYTES, Http2, Service

if TYPE_CHECKING:
    from convotic_emulator.grpc.status import CallError

__all__ = ["Connection", "Http1", "Owner"]

logger = logging.getLogger(__name__)

#: Serves a client that speaks HTTP/1.1.
Http1: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

#: One connection's frames are handled for so long in a turn of the event loop, then the others'.
_SLICE_SECONDS = 0.001
#: What may wait to be sent, beyond asyncio's own mark, before we stop reading.
_MAX_UNSENT_BYTES = 1 << 20
#: How long a client of HTTP/1.1 that has stopped sending may wait: for a write to a slow disk, on a
#: busy machine. Most such have gone, and a Pull of theirs should not wait for messages for long.
_HALF_CLOSED_SECONDS = 10.0
_ADVICE = b"This port speaks gRPC, over HTTP/2 without TLS.\n"
#: For a browser, or curl.
_NOT_HTTP_2 = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_ADVICE), _ADVICE)
)


class Owner(Protocol):
    """What a connection uses of its server."""

    service: Service
    http1: Http1 | None

    def on_handled(self) -> None:
        """Note that the frames that came together have been handled."""

    def add(self, connection: Connection) -> None:
        """Note an open connection."""

    def remove(self, connection: Connection) -> None:
        """Forget a closed one."""


class Connection(asyncio.Protocol):
    """A client's connection. Belongs to the event loop's thread."""

    def __init__(self, owner: Owner) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self.http2 = Http2(owner.service, self)
        self._has_begun = False
        self._http1: asyncio.StreamReaderProtocol | None = None
        self._http1_task: asyncio.Task[None] | None = None
        self.is_paused = False
        #: What was written since the socket took no more. It is kept here, in one piece: since
        #: Python 3.12 asyncio counts all the pieces that it keeps, at each write.
        self._unsent = bytearray()
        self._is_reading = True
        self._next_slice: asyncio.Handle | None = None
        self._abort_timer: asyncio.TimerHandle | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the client's preface."""
        self._transport = cast("asyncio.Transport", transport)
        # asyncio does so for sockets that were made with the protocol's number only.
        connected: socket.socket = transport.get_extra_info("socket")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._owner.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what has become pointless."""
        self._transport = None
        self._owner.remove(self)
        if self._next_slice is not None:
            self._next_slice.cancel()
        self._abort_after(None)
        self.http2.detach()
        if self._http1 is not None:
            self._http1.connection_lost(exc)
        if self._http1_task is not None:
            self._http1_task.cancel()

    def pause_writing(self) -> None:
        """Stop sending messages: the client does not read."""
        self.is_paused = True
        self.http2.pause(is_paused=True)
        if self._http1 is not None:
            self._http1.pause_writing()

    def resume_writing(self) -> None:
        """Go on sending, and reading."""
        self.is_paused = False
        self._flush()
        if self.is_paused:
            return  # by what was kept
        if self._http1 is None:
            self._abort_after(None)
        if self._http1 is not None:
            self._http1.resume_writing()
        self.http2.pause(is_paused=False)
        self._schedule()

    def data_received(self, data: bytes) -> None:
        """Handle the complete frames."""
        if self._http1 is not None:
            self._http1.data_received(data)
            return
        self._buffer += data
        if self._next_slice is None:
            self._handle()

    def eof_received(self) -> bool | None:
        """Close; a client of HTTP/1.1 may have half-closed, and gets an answer that is near."""
        if self._http1 is None:
            return False
        self._abort_after(_HALF_CLOSED_SECONDS)
        return self._http1.eof_received()

    # What the server uses

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks that serve calls."""
        tasks = [call.task for call in self.http2.calls.values()]
        return [task for task in (*tasks, self._http1_task) if task is not None]

    def leave(self) -> None:
        """Take no more calls: the client connects elsewhere for those."""
        if self._has_begun:
            self.http2.leave()

    def end_calls(self, error: CallError) -> None:
        """End all calls with a status."""
        self.http2.end(error)

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR, reason: str = "") -> None:
        """Send what waits, and close."""
        if self._transport is not None and not self._transport.is_closing():
            if code is not ErrorCode.NO_ERROR:
                self.write(self.http2.goaway(code, reason))
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def write(self, data: bytes) -> None:
        """Send bytes; dropped if the client has gone."""
        if self._transport is not None and not self._transport.is_closing():
            if self.is_paused:
                self._unsent += data
            else:
                self._transport.write(data)

    # Inside

    def _flush(self) -> None:
        """Give asyncio what was kept."""
        unsent, self._unsent = self._unsent, bytearray()
        if unsent and self._transport is not None:
            self._transport.write(unsent)

    def _handle(self) -> None:
        """Handle frames for a slice of time; the rest waits for the loop's next turn."""
        self._next_slice = None
        try:
            if self._has_begun or self._begin():
                self._handle_frames()
                self.http2.wake_blocked()
                self._owner.on_handled()
        except ProtocolError as error:
            self.close(error.code, str(error))
        except Exception as error:
            logger.exception("A connection failed.")
            self.close(ErrorCode.INTERNAL_ERROR, repr(error))

    def _begin(self) -> bool:
        """Take the preface; return whether it is complete."""
        start = bytes(self._buffer[: len(PREFACE)])
        if not PREFACE.startswith(start):
            self._begin_http1()
            return False
        if len(start) < len(PREFACE):
            return False
        buffer = self._buffer
        if len(buffer) >= len(PREFACE) + HEAD_BYTES:
            _, _, kind, flags, _ = HEAD.unpack_from(buffer, len(PREFACE))
            if kind != Kind.SETTINGS or flags & 1:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            del buffer[: len(PREFACE)]
            self._has_begun = True
            self.http2.begin()
        return self._has_begun

    def _begin_http1(self) -> None:
        """Give the connection to the server of HTTP/1.1, or refuse it in a readable form."""
        serve = self._owner.http1
        if serve is None or self._transport is None:
            self.write(_NOT_HTTP_2)
            self.close()
            return
        reader = asyncio.StreamReader()
        self._http1 = asyncio.StreamReaderProtocol(reader)
        self._http1.connection_made(self._transport)
        writer = asyncio.StreamWriter(self._transport, self._http1, reader, self._loop)
        data, self._buffer = bytes(self._buffer), bytearray()
        self._http1.data_received(data)
        self._http1_task = self._loop.create_task(_serve_http1(serve, reader, writer))

    def _handle_frames(self) -> None:
        buffer, handle = self._buffer, self.http2.handle
        start, end = 0, len(buffer)
        now = self._loop.time
        slice_end = now() + _SLICE_SECONDS
        while end - start >= HEAD_BYTES:
            high, low, kind, flags, stream = HEAD.unpack_from(buffer, start)
            length = high << 16 | low
            if length > MAX_FRAME_BYTES:
                raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"a frame has {length} bytes")
            body = start + HEAD_BYTES
            if end - body < length:
                break
            if (start and now() > slice_end) or (self.is_paused and self._is_stuck()):
                del buffer[:start]
                self._schedule()
                return
            start = body + length
            handle(kind, flags, stream & MAX_WINDOW, bytes(buffer[body:start]))
        del buffer[:start]
        self._read(is_reading=True)

    def _schedule(self) -> None:
        """Stop reading until what is left is handled: next turn, or once the client reads."""
        if self._is_reading and not self._buffer:
            return
        self._read(is_reading=False)
        if self._is_stuck():
            self._abort_after(self._owner.service.stuck_seconds)
        elif self._next_slice is None:
            self._next_slice = self._loop.call_soon(self._handle)

    def _is_stuck(self) -> bool:
        return self.is_paused and len(self._unsent) > _MAX_UNSENT_BYTES

    def _abort_after(self, seconds: float | None) -> None:
        """Disconnect the client unless it reads in time; None: it does."""
        if seconds is not None and self._abort_timer is None:
            self._abort_timer = self._loop.call_later(seconds, self.abort)
        elif seconds is None and self._abort_timer is not None:
            self._abort_timer.cancel()
            self._abort_timer = None

    def _read(self, *, is_reading: bool) -> None:
        if self._is_reading is is_reading or self._transport is None:
            return
        if not self._transport.is_closing():
            self._is_reading = is_reading
            if is_reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()


async def _serve_http1(
    serve: Http1, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        await serve(reader, writer)
    except (OSError, EOFError):
        pass  # the client has gone, or sent half a request
    except Exception:
        logger.exception("A request failed.")
    finally:
        writer.close()
