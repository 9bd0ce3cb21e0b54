"""One call: a stream of HTTP/2, as the method that serves it sees it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convotic_emulator.grpc.eager import EagerCoroutine
from convotic_emulator.grpc.frames import (
    END_HEADERS,
    END_STREAM,
    MAX_WINDOW,
    ErrorCode,
    Kind,
    ProtocolError,
    ReceiveWindow,
    data_frames,
    frame,
    reset_frame,
)
from convotic_emulator.grpc.headers import Request, trailers
from convotic_emulator.grpc.messages import PREFIX_BYTES, MessageReader, framed
from convotic_emulator.grpc.status import CallError, Status

if TYPE_CHECKING:
    from convotic_emulator.grpc.connection import Connection

__all__ = ["RECEIVE_WINDOW", "Call", "Method"]

logger = logging.getLogger(__name__)

#: What a client may send of a call before we say that there is room for more.
RECEIVE_WINDOW = 1 << 20
#: A handler that does not read holds its client up when so much waits for it.
_MAX_UNREAD_BYTES = 1 << 20
_OK = trailers(Status.OK)


@dataclass(frozen=True, slots=True)
class Method:
    """What serves a method.

    ``serve(request, call)`` returns the answer of a unary one; ``serve(call)`` of a bidirectional
    stream reads and writes, and returns at its end. ``parse`` makes a request of bytes; answers
    have ``SerializeToString``. Raise CallError to end a call with a status. When the client
    cancels the call, or its deadline passes, the coroutine is cancelled.
    """

    serve: Callable[..., Awaitable[Any]]
    parse: Callable[[bytes], Any]
    is_stream: bool = False


class Call:
    """What a method reads from and writes to. Not thread-safe: use it in the server's loop."""

    __slots__ = (
        "_arrival",
        "_connection",
        "_deadline",
        "_failure",
        "_has_ended",
        "_head",
        "_is_mid_message",
        "_is_over",
        "_loop",
        "_messages",
        "_method",
        "_reader",
        "_receive_window",
        "_room",
        "_stream",
        "_task",
        "_timer",
        "_unread_bytes",
        "window",
    )

    def __init__(
        self, connection: Connection, stream: int, method: Method, request: Request
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._method = method
        self._loop = connection.loop
        #: Headers that are still to be sent.
        self._head = frame(Kind.HEADERS, END_HEADERS, stream, connection.answer_headers)
        self._messages: deque[bytes] = deque()
        self._reader = MessageReader(request.encoding, connection.max_request_bytes)
        self._unread_bytes = 0
        self._receive_window = ReceiveWindow(stream, RECEIVE_WINDOW)
        #: How much the client lets us send of this call.
        self.window = connection.initial_window
        self._has_ended = False
        self._is_mid_message = False
        #: Why nothing more can be read.
        self._failure: CallError | None = None
        #: The status is sent, or nobody is there to hear it.
        self._is_over = False
        #: Waited for in read(), and in write().
        self._arrival: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        if request.timeout_seconds is not None:
            self._deadline = self._loop.time() + request.timeout_seconds
            self._timer = self._loop.call_at(self._deadline, self._on_deadline)
        if method.is_stream:
            self._task = self._loop.create_task(self._run())

    # What a method uses

    def time_remaining(self) -> float | None:
        """Return the seconds until the client's deadline, None if it has none."""
        return None if self._deadline is None else max(0.0, self._deadline - self._loop.time())

    def send_headers(self) -> None:
        """Let the client know that the call is served; otherwise they go with the first message."""
        head, self._head = self._head, b""
        if not self._is_over:
            self._connection.write(head)

    async def read(self) -> Any | None:
        """Return the client's next message, None once it has said that there are no more.

        Raises:
            CallError: what it sent is no message.
        """
        while not self._messages:
            if self._failure is not None:
                raise self._failure
            if self._has_ended:
                return None
            self._arrival = self._loop.create_future()
            await self._arrival
        message = self._messages.popleft()
        self._unread_bytes -= PREFIX_BYTES + len(message)
        self._give_credit()
        return self._parse(message)

    async def write(self, message: Any) -> None:
        """Send a message, in the client's time. One at a time."""
        await self._send(message.SerializeToString(), b"")

    # What the connection tells

    def on_data(self, data: bytes, size: int) -> None:
        """Take a part of the client's messages; ``size`` counts padding too."""
        self._receive_window.take(size)
        if self._failure is None and data:
            try:
                for message in self._reader.feed(data):
                    self._messages.append(message)
                    self._unread_bytes += PREFIX_BYTES + len(message)
            except CallError as error:
                self._fail(error)
        _wake(self._arrival)
        self._give_credit()

    def on_end(self) -> None:
        """Note that the client sends no more."""
        self._has_ended = True
        if self._is_over:
            return
        if self._failure is None and not self._reader.is_between:
            self._fail(CallError(Status.INTERNAL, "The request is cut off in a message."))
        _wake(self._arrival)
        if self._task is None:
            self._start()

    def on_window(self, size: int) -> None:
        """Let more be sent."""
        self.window += size
        if self.window > MAX_WINDOW:
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "the window is too large")
        self.on_room()

    def on_room(self) -> None:
        """Look again whether something can be sent."""
        _wake(self._room)

    def end(self, error: CallError | None) -> None:
        """Cancel the call: with a status for the client, or because it has gone."""
        self._finish(error)
        if self._task is not None:
            self._task.cancel()

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What serves the call."""
        return self._task

    # Inside

    def _start(self) -> None:
        """Run the method: as far as it goes at once here, the rest in a task.

        Most wait once, for the commit, and what they commit need not wait for a turn of the loop.
        """
        running = EagerCoroutine(self._run())
        if not running.has_ended:
            self._task = self._loop.create_task(running)

    async def _run(self) -> None:
        """Serve the method; raises nothing but a cancellation."""
        try:
            if self._method.is_stream:
                await self._method.serve(self)
                self._finish(CallError(Status.OK, ""))
            else:
                answer = await self._method.serve(self._only_request(), self)
                await self._send(answer.SerializeToString(), self._tail(_OK))
                self._finish(None)
        except CallError as error:
            self._finish(error)
        except Exception as error:
            logger.exception("A method failed.")
            self._finish(CallError(Status.UNKNOWN, f"Unexpected {type(error)}: {error}"))

    def _only_request(self) -> Any:
        if self._failure is not None:
            raise self._failure
        if len(self._messages) != 1:
            raise CallError(
                Status.UNIMPLEMENTED, f"The call has {len(self._messages)} requests; it takes one."
            )
        return self._parse(self._messages.popleft())

    def _parse(self, message: bytes) -> Any:
        try:
            return self._method.parse(message)
        except Exception as error:
            raise CallError(Status.INTERNAL, "Exception deserializing request!") from error

    def _fail(self, error: CallError) -> None:
        self._failure = error
        if not self._method.is_stream and self._task is None:
            self._start()

    def _on_deadline(self) -> None:
        self.end(CallError(Status.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    async def _send(self, message: bytes, tail: bytes) -> None:
        """Send a message, and ``tail`` behind it."""
        data = framed(message)
        connection = self._connection
        if self._is_over:
            return
        head, self._head = self._head, b""
        self._is_mid_message = True
        start, end = 0, len(data)
        while end - start > (room := connection.room(self)):
            if room > 0:
                self._send_part(head, data[start : start + room], b"")
                head = b""
                start += room
            else:
                self._room = self._loop.create_future()
                await self._room
        self._send_part(head, data[start:], tail)
        self._is_mid_message = False

    def _send_part(self, head: bytes, data: bytes, tail: bytes) -> None:
        """Send a part of a message that there is room for, with frames before and after it."""
        connection = self._connection
        self.window -= len(data)
        connection.window -= len(data)
        connection.write(head + data_frames(self._stream, data, connection.max_frame_bytes) + tail)

    def _tail(self, block: bytes) -> bytes:
        tail = frame(Kind.HEADERS, END_HEADERS | END_STREAM, self._stream, block)
        if not self._has_ended:
            # The whole answer is there: the client need not send the rest of its request.
            tail += reset_frame(self._stream, ErrorCode.NO_ERROR)
        return tail

    def _finish(self, error: CallError | None) -> None:
        """End the call with a status; None: it has been sent, or nobody is there to hear it."""
        if self._is_over:
            return
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if error is not None and self._is_mid_message:
            self._connection.write(reset_frame(self._stream, ErrorCode.CANCEL))
        elif error is not None:
            block = trailers(error.status, error.message, error.trailers)
            self._connection.write(self._head + self._tail(block))
        self._connection.forget(self._stream)

    def _give_credit(self) -> None:
        """Let the client send more, but not faster than a handler reads."""
        if self._unread_bytes < _MAX_UNREAD_BYTES and not self._has_ended:
            granted = self._receive_window.grant()
            if granted:
                self._connection.write(granted)


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
