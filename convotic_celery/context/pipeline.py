"""One connection to the store for all coroutines of an event loop: :class:`Pipeline`.

Commands from one turn of the loop are written together, and answers are matched to them by their
order, so a call costs neither a connection nor a system call of its own. redis-py makes the
connection (address, TLS, login, database) and knows the server's errors; this class reads and
writes, since redis-py's asyncio client spends 100 to 200 µs of CPU on a call, and this 10 µs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

__all__ = ["Pipeline"]

_pack: Any = hiredis.pack_command  # its stub takes commands of one word only

#: Most commands sent together. The first ones of a busy turn leave while others are still being
#: added: otherwise all runs would wait together, and the loop for the server, twice a message.
_MOST_COMMANDS = 16


class Pipeline(asyncio.Protocol):
    """Runs commands in the order of the calls. Belongs to one event loop; not thread-safe.

    When the connection is lost, the calls that wait for an answer fail; the next call makes a new
    one. If a caller is cancelled, its answer is dropped and the connection stays.

    Args:
        make_connection: Returns a ``redis.asyncio`` connection that is not open yet. It decodes
            answers as UTF-8.
        timeout_seconds: How long one answer may take before the connection counts as dead.
    """

    def __init__(self, make_connection: Callable[[], Any], timeout_seconds: float) -> None:
        self._make_connection = make_connection
        self._timeout_seconds = timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._connection: Any = None
        self._streams: asyncio.BaseProtocol | None = None
        self._transport: Any = None
        self._opening: asyncio.Task[None] | None = None
        self._reader: Any = None
        self._outgoing: list[bytes] = []
        #: The answers that are owed, oldest first.
        self._waiting: deque[asyncio.Future[Any]] = deque()
        #: How many commands were sent and answered on this connection, and for each write how many
        #: had been sent after it, with the time by which so many answers must be here.
        self._sent = self._answered = 0
        self._due: deque[tuple[int, float]] = deque()
        self._timer: asyncio.Handle | None = None

    async def call(self, *command: str | int) -> Any:
        """Send a command and return the server's answer: text, a number, a list or None.

        Raises:
            redis.exceptions.ConnectionError: The server can't be reached, or hung up.
            redis.exceptions.TimeoutError: It did not answer in time.
            redis.exceptions.ResponseError: It refused the command.
        """
        return await self.send(command)

    def send(self, command: tuple[object, ...]) -> Awaitable[Any]:
        """Send a command at once, or when connected; await its answer as that of :meth:`call`.

        Raises at once what can't be sent: it must not wait for an answer.
        """
        packed = _pack(command)
        if self._transport is None:
            return self._send_when_open(command)
        answer: asyncio.Future[Any] = asyncio.Future(loop=self._loop)
        self._waiting.append(answer)
        outgoing = self._outgoing
        outgoing.append(packed)
        if len(outgoing) == 1:
            self._loop.call_soon(self._flush)
        elif len(outgoing) >= _MOST_COMMANDS:
            self._flush()
        return answer

    async def _send_when_open(self, command: tuple[object, ...]) -> Any:
        while self._transport is None:
            await self._open()
        return await self.send(command)

    async def aclose(self) -> None:
        """Close the connection; calls that wait fail. The next call makes a new one."""
        if self._opening is not None:
            self._opening.cancel()
        if self._connection is not None:
            connection = self._connection
            self._lose(RedisConnectionError("The connection was closed."))
            await connection.disconnect()

    async def _open(self) -> None:
        """Connect, once for all callers that wait."""
        if self._opening is None:
            self._opening = self._loop.create_task(self._connect())
            self._opening.add_done_callback(self._opened)
        await asyncio.shield(self._opening)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # each caller has it; perhaps none has waited to the end

    async def _connect(self) -> None:
        connection = self._make_connection()
        await connection.connect()
        # redis-py has no public way to the transport of a connection.
        transport = connection._writer.transport
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=connection._parser.parse_error,
            encoding="utf-8",
        )
        self._streams = transport.get_protocol()
        transport.set_protocol(self)
        self._connection, self._transport = connection, transport

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None and outgoing:
            self._transport.write(b"".join(outgoing))
            self._sent += len(outgoing)
            due = self._loop.time() + self._timeout_seconds
            self._due.append((self._sent, due))
            if self._timer is None:
                self._timer = self._loop.call_at(due, self._look_for_late)

    def data_received(self, data: bytes) -> None:
        """Hand out the answers that are complete (asyncio calls this)."""
        reader, waiting = self._reader, self._waiting
        owed = len(waiting)
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not False:
                caller = waiting.popleft()
                if caller.done():
                    continue
                if isinstance(answer, Exception):
                    caller.set_exception(answer)
                else:
                    caller.set_result(answer)
        except (InvalidResponse, IndexError, UnicodeDecodeError) as error:
            # From here on answers can't be matched to commands.
            self._abort(InvalidResponse(f"The store's answer can't be read: {error}"))
            return
        self._answered += owed - len(waiting)
        while self._due and self._due[0][0] <= self._answered:
            self._due.popleft()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the calls that wait (asyncio calls this)."""
        if self._streams is not None:
            self._streams.connection_lost(exc)
        self._lose(RedisConnectionError(f"The store closed the connection: {exc or 'end of data'}"))

    def _look_for_late(self, *, again: bool = False) -> None:
        """Drop the connection if the oldest answer is late."""
        self._timer = None
        if not self._due:
            return
        due = self._due[0][1]
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._look_for_late)
        elif not again:
            # The loop may have been blocked, with the answer already here to be read.
            self._timer = self._loop.call_later(0.01, lambda: self._look_for_late(again=True))
        else:
            self._abort(RedisTimeoutError(f"no answer within {self._timeout_seconds:g} s"))

    def _abort(self, error: Exception) -> None:
        transport = self._transport
        self._lose(error)
        if transport is not None:
            transport.abort()

    def _lose(self, error: Exception) -> None:
        """Forget the connection, and fail the calls that wait for its answers."""
        connection, self._connection, self._transport = self._connection, None, None
        if connection is not None:
            connection._close()  # its streams are not read any more
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._outgoing.clear()
        self._sent = self._answered = 0
        self._due.clear()
        waiting, self._waiting = self._waiting, deque()
        for answer in waiting:
            if not answer.done():
                answer.set_exception(error)
