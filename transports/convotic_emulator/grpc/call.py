"""One call: a stream of HTTP/2, as the method that serves it sees it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from convotic_emulator.grpc.eager import EagerCoroutine
from convotic_emulator.grpc.frames import (
    END_STREAM,
    MAX_WINDOW,
    ErrorCode,
    StreamError,
    data_frames,
    header_frames,
    reset_frame,
)
from convotic_emulator.grpc.headers import trailers
from convotic_emulator.grpc.messages import PREFIX_BYTES, MessageReader, RawMessage, framed
from convotic_emulator.grpc.status import CallError, Status
from convotic_emulator.grpc.windows import ReceiveWindow

if TYPE_CHECKING:
    from convotic_emulator.grpc.headers import Request

__all__ = ["RECEIVE_WINDOW", "Call", "Carrier", "Method"]

logger = logging.getLogger(__name__)

#: What a client may send of a call before we grant more.
RECEIVE_WINDOW = 1 << 20
#: A handler that does not read holds its client up when so much waits for it.
_MAX_UNREAD_BYTES = 1 << 20
#: So little that waits in a call is not counted; a connection has at most 1,000 calls.
_SMALL_BYTES = 1 << 14
_OK = trailers(Status.OK)


class Carrier(Protocol):
    """What a call uses of its connection."""

    loop: asyncio.AbstractEventLoop
    answer_headers: bytes
    max_request_bytes: int
    initial_window: int
    max_frame_bytes: int
    max_header_bytes: int

    def write(self, data: bytes) -> None:
        """Send frames."""

    def room(self, call: Call) -> int:
        """Return how many bytes of a call's messages can be sent now."""

    def spend(self, size: int) -> None:
        """Count bytes of messages that are about to be sent."""

    def block(self, call: Call) -> None:
        """Call ``on_room`` when something can be sent."""

    def retry(self, call: Call) -> None:
        """Note that a blocked call's own window has grown."""

    def passed(self) -> None:
        """Note that a woken call goes on."""

    def reserve(self, size: int) -> None:
        """Count bytes of answers that are being made and sent; negative: that are sent."""

    def hold(self, size: int) -> bool:
        """Count bytes that wait to be read (negative: that were); False: they are too many."""

    @property
    def is_drained(self) -> bool:
        """Whether little waits to be sent."""

    async def drained(self) -> None:
        """Wait for that."""

    async def have_read(self) -> None:
        """Wait until the client has read what was sent until now."""

    def forget(self, stream: int, *, is_complete: bool) -> None:
        """Drop a call that has ended; whether the client has sent all of its request."""


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
        "_carrier",
        "_content_left",
        "_deadline",
        "_failure",
        "_head",
        "_held",
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
        "has_ended",
        "window",
    )

    def __init__(self, carrier: Carrier, stream: int, method: Method, request: Request) -> None:
        self._carrier = carrier
        self._stream = stream
        self._method = method
        self._loop = carrier.loop
        #: Header block that goes out with the first message.
        self._head = carrier.answer_headers
        self._messages: deque[RawMessage] = deque()
        self._reader = MessageReader(request.encoding, carrier.max_request_bytes)
        self._content_left = request.content_length
        self._unread_bytes = 0
        #: What the connection counts as held for this call.
        self._held = 0
        self._receive_window = ReceiveWindow(stream, RECEIVE_WINDOW)
        #: How much the client lets us send of this call.
        self.window = carrier.initial_window
        #: The client has sent its whole request.
        self.has_ended = False
        self._is_mid_message = False
        #: Why nothing more can be read.
        self._failure: CallError | None = None
        #: The status is sent, or the client has gone.
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

    @property
    def peer(self) -> object:
        """The client's connection: the same object for all of its calls."""
        return self._carrier

    def time_remaining(self) -> float | None:
        """Return the seconds until the client's deadline, None if it has none."""
        return None if self._deadline is None else max(0.0, self._deadline - self._loop.time())

    def send_headers(self) -> None:
        """Tell the client that the call is served; otherwise the first message does."""
        head = self._take_head()
        if not self._is_over:
            self._carrier.write(head)

    async def read(self) -> Any | None:
        """Return the client's next message, None at the end of its request.

        Raises:
            CallError: what it sent is no message.
        """
        while not self._messages:
            if self._failure is not None:
                raise self._failure
            if self.has_ended:
                return None
            self._arrival = self._loop.create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        message = self._take_message()
        self._give_credit()
        return self._parse(message)

    async def write(self, message: Any) -> None:
        """Send a message as the client's window allows. One at a time."""
        await self._send(message.SerializeToString(), b"")

    def reserve(self, size: int) -> None:
        """Count bytes of messages that are being made and sent; negative: that are sent."""
        self._carrier.reserve(size)

    @property
    def is_drained(self) -> bool:
        """Whether this connection's calls have reserved little: a method may make more then."""
        return self._carrier.is_drained

    async def drained(self) -> None:
        """Wait until :attr:`is_drained`."""
        await self._carrier.drained()

    async def have_read(self) -> None:
        """Wait until the client has read what its connection was sent until now, 0.1 s at most."""
        await self._carrier.have_read()

    # What the connection reports

    def on_data(self, data: bytes, size: int) -> None:
        """Take a part of the client's messages; ``size`` counts padding too.

        Raises:
            StreamError: it is more than the window or ``content-length`` allows.
        """
        self._receive_window.take(size)
        if self._content_left is not None:
            self._content_left -= len(data)
            if self._content_left < 0:
                raise self._wrong_length()
        if self._failure is None and data:
            try:
                for message in self._reader.feed(data):
                    self._messages.append(message)
                    self._unread_bytes += PREFIX_BYTES + len(message[1])
            except CallError as error:
                self._fail(error)
        if not self._count_held():
            text = "Too much data waits to be read on this connection."
            self.end(CallError(Status.RESOURCE_EXHAUSTED, text))
            return
        _wake(self._arrival)
        self._give_credit()

    def on_end(self) -> None:
        """Note that the client sends no more.

        Raises:
            StreamError: it has sent less than ``content-length`` says.
        """
        self.has_ended = True
        if self._is_over:
            return
        if self._content_left:
            raise self._wrong_length()
        if self._failure is None and self._reader.buffer:
            self._fail(CallError(Status.INTERNAL, "The request ends inside a message."))
        _wake(self._arrival)
        if self._task is None:
            self._start()

    def on_window(self, size: int) -> None:
        """Take the client's leave to send more, or less if ``size`` is negative.

        Raises:
            StreamError: the window is larger than HTTP/2 allows.
        """
        self.window += size
        if self.window > MAX_WINDOW:
            reason = f"the window of stream {self._stream} is too large"
            raise StreamError(self._stream, ErrorCode.FLOW_CONTROL_ERROR, reason)
        if self._room is not None:
            self._carrier.retry(self)

    def on_room(self) -> None:
        """Go on sending."""
        _wake(self._room)

    def end(self, error: CallError | None) -> None:
        """Cancel the call: with a status for the client, or because it has gone."""
        self._finish(error)
        # A cancelled task keeps its frames, which keep the call: it must not keep them in turn.
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that serves the call."""
        return self._task

    # Inside

    def _start(self) -> None:
        """Run the method to its first wait at once, the rest in a task.

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
        return self._parse(self._take_message())

    def _take_message(self) -> RawMessage:
        message = self._messages.popleft()
        self._unread_bytes -= PREFIX_BYTES + len(message[1])
        self._count_held()
        return message

    def _parse(self, message: RawMessage) -> Any:
        plain = self._reader.plain(message)
        try:
            return self._method.parse(plain)
        except CallError:
            raise
        except Exception as error:
            raise CallError(Status.INTERNAL, "Exception deserializing request!") from error

    def _fail(self, error: CallError) -> None:
        self._failure = error
        if not self._method.is_stream and self._task is None:
            self._start()

    def _on_deadline(self) -> None:
        self.end(CallError(Status.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def _wrong_length(self) -> StreamError:
        reason = "the request is longer or shorter than its content-length"
        return StreamError(self._stream, ErrorCode.PROTOCOL_ERROR, reason)

    def _count_held(self) -> bool:
        """Have the connection count what waits here; return whether that is not too much."""
        held = self._unread_bytes + len(self._reader.buffer)
        if held <= _SMALL_BYTES:
            held = 0
        if held == self._held:
            return True
        more, self._held = held - self._held, held
        return self._carrier.hold(more)

    def _give_credit(self) -> None:
        """Let the client send more, but not faster than a handler reads."""
        if self._unread_bytes < _MAX_UNREAD_BYTES and not self.has_ended:
            granted = self._receive_window.grant()
            if granted:
                self._carrier.write(granted)

    def _take_head(self) -> bytes:
        """Return the frames that begin the answer, the first time."""
        block, self._head = self._head, b""
        if not block:
            return b""
        return header_frames(self._stream, 0, block, self._carrier.max_frame_bytes)

    async def _send(self, message: bytes, tail: bytes) -> None:
        """Send a message, and ``tail`` behind it."""
        data = framed(message)
        if self._is_over:
            return
        carrier, head = self._carrier, self._take_head()
        self._is_mid_message = True
        start, end = 0, len(data)
        while end - start > (room := carrier.room(self)):
            if room > 0:
                self._send_part(head, data[start : start + room], b"")
                head = b""
                start += room
            else:
                await self._wait_for_room()
        self._send_part(head, data[start:], tail)
        self._is_mid_message = False

    async def _wait_for_room(self) -> None:
        self._room = self._loop.create_future()
        self._carrier.block(self)
        try:
            await self._room
        finally:
            self._room = None
            self._carrier.passed()

    def _send_part(self, head: bytes, data: bytes, tail: bytes) -> None:
        """Send a part of a message that there is room for, with frames before and after it."""
        carrier = self._carrier
        self.window -= len(data)
        carrier.spend(len(data))
        carrier.write(head + data_frames(self._stream, data, carrier.max_frame_bytes) + tail)

    def _tail(self, block: bytes) -> bytes:
        tail = header_frames(self._stream, END_STREAM, block, self._carrier.max_frame_bytes)
        if not self.has_ended:
            # The whole answer is there: the client need not send the rest of its request.
            tail += reset_frame(self._stream, ErrorCode.NO_ERROR)
        return tail

    def _finish(self, error: CallError | None) -> None:
        """End the call with a status; None: it has been sent, or the client has gone."""
        if self._is_over:
            return
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if error is not None and self._is_mid_message:
            self._carrier.write(reset_frame(self._stream, ErrorCode.CANCEL))
        elif error is not None:
            self._carrier.write(self._take_head() + self._tail(self._trailers(error)))
        self._messages.clear()
        if self._held:
            self._carrier.hold(-self._held)
            self._held = 0
        self._carrier.forget(self._stream, is_complete=self.has_ended)

    def _trailers(self, error: CallError) -> bytes:
        """Return an error's trailers, without its details if the client can't take so much."""
        block = trailers(error.status, error.message, error.trailers)
        if error.trailers and len(block) > self._carrier.max_header_bytes:
            return trailers(error.status, error.message)
        return block


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
