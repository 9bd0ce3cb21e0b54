"""How a forked child publishes: through a socket pair, by the session of its parent.

gRPC does not survive a fork (https://github.com/grpc/grpc/blob/master/doc/fork_support.md), and
Celery's default pool forks. So each fork makes a pair of sockets for each session; the child's
requests go over it, and the parent's I/O thread does the work. On the wire, both ways: 4 bytes of
length, then a pickle; both ends are the same program, and nobody else can reach the pair.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import pickle
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

from convotic_pubsub.errors import BrokerUnavailable, PubsubTransportError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["RelayClient", "serve_child"]

_LENGTH = struct.Struct("!I")


class RelayClient:
    """The child's end. Thread-safe; a thread of its own reads the answers."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, concurrent.futures.Future[Any]] = {}
        self._reader: threading.Thread | None = None

    def ask(self, method: str, *args: object) -> concurrent.futures.Future[Any]:
        """Ask the parent; the future has its answer, or the error that it met."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = future
            if self._reader is None:
                self._reader = threading.Thread(
                    target=self._read_answers, name="convotic-pubsub-relay", daemon=True
                )
                self._reader.start()
            try:
                self._socket.sendall(_frame((number, method, args)))
            except OSError:
                if self._waiting.pop(number, None):  # else the reader was faster
                    future.set_exception(_parent_is_gone())
        return future

    def _read_answers(self) -> None:
        with contextlib.suppress(OSError, EOFError), self._socket.makefile("rb") as stream:
            while True:
                (length,) = _LENGTH.unpack(_read_exactly(stream, _LENGTH.size))
                number, result, error = pickle.loads(_read_exactly(stream, length))  # noqa: S301  see above
                future = self._waiting.pop(number)
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)
        while self._waiting:
            self._waiting.popitem()[1].set_exception(_parent_is_gone())


def _read_exactly(stream: Any, count: int) -> bytes:
    data: bytes = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _frame(value: object) -> bytes:
    data = pickle.dumps(value)
    return _LENGTH.pack(len(data)) + data


def _parent_is_gone() -> BrokerUnavailable:
    return BrokerUnavailable("the process that this one was forked from, and published by, is gone")


async def serve_child(
    sock: socket.socket, answer: Callable[[str, tuple[Any, ...]], Awaitable[Any]]
) -> None:
    """Answer a child's requests until it ends; many may be under way. Runs on the I/O thread."""
    reader, writer = await asyncio.open_connection(sock=sock)
    tasks: set[asyncio.Task[None]] = set()
    try:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                request = pickle.loads(await reader.readexactly(length))  # noqa: S301  see above
                task = asyncio.ensure_future(_answer_one(writer, answer, *request))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        if tasks:  # what the child asked for last is done, though nobody hears of it
            await asyncio.wait(tasks)
    finally:
        writer.close()


async def _answer_one(
    writer: asyncio.StreamWriter,
    answer: Callable[[str, tuple[Any, ...]], Awaitable[Any]],
    number: int,
    method: str,
    args: tuple[Any, ...],
) -> None:
    reply: tuple[int, Any, Exception | None]
    try:
        reply = (number, await answer(method, args), None)
    except PubsubTransportError as error:
        reply = (number, None, error)
    except Exception as error:  # noqa: BLE001  told to the one who asked; it may not pickle
        reply = (number, None, PubsubTransportError(f"{type(error).__name__}: {error}"))
    writer.write(_frame(reply))
