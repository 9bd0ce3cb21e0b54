"""How a forked child publishes: through a socket pair, by the session of its parent.

gRPC does not survive a fork (https://github.com/grpc/grpc/blob/master/doc/fork_support.md), and
Celery's default pool forks. So each fork makes a pair of sockets for each session; the child's
requests go over it, and the parent's I/O thread does the work. On the wire, both ways: 4 bytes of
length, then a pickle; both ends are the same program, and no other process can reach the pair. A
child of such a child has no pair: it gets an error. ``subprocess`` does not count: it runs no
hooks.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import os
import pickle
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any, Protocol

from convotic_pubsub.errors import BrokerUnavailable, PubsubTransportError
from convotic_pubsub.threads import LazyThread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

__all__ = ["ForkableSession", "Relay", "serve_child", "watch_forks"]

_LENGTH = struct.Struct("!I")
_FORKED_TWICE = (
    "this process was forked from a forked child, and can't publish: only a child of the process "
    "that connected can. Connect after the fork, or start it by 'spawn'"
)


class Relay:
    """The child's end. Thread-safe; a thread of its own reads the answers."""

    def __init__(self, sock: socket.socket | None) -> None:
        """Ask over ``sock``; None: the parent is a forked child itself, and can't be asked."""
        self._socket = sock
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, concurrent.futures.Future[Any]] = {}
        self._reader = LazyThread(self._read_answers, name="convotic-relay")

    def ask(self, method: str, *args: object) -> concurrent.futures.Future[Any]:
        """Ask the parent; the future has its answer, or the error that it met."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        sock = self._socket
        if sock is None:
            future.set_exception(PubsubTransportError(_FORKED_TWICE))
            return future
        request = pickle.dumps((method, args))  # before anything waits: it may fail
        self._reader.start()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = future
            try:
                sock.sendall(_frame((number, request)))
            except OSError:
                if self._waiting.pop(number, None):  # else the reader was faster
                    future.set_exception(_parent_is_gone())
        return future

    def _read_answers(self) -> None:
        sock = self._socket
        assert sock is not None
        with contextlib.suppress(OSError, EOFError), sock.makefile("rb") as stream:
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
                number, request = pickle.loads(await reader.readexactly(length))  # noqa: S301
                task = asyncio.ensure_future(_answer_one(writer, answer, number, request))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        if tasks:  # what the child asked for last is done, without an answer
            await asyncio.wait(tasks)
    finally:
        writer.close()


async def _answer_one(
    writer: asyncio.StreamWriter,
    answer: Callable[[str, tuple[Any, ...]], Awaitable[Any]],
    number: int,
    request: bytes,
) -> None:
    reply: tuple[int, Any, Exception | None]
    try:
        method, args = pickle.loads(request)  # noqa: S301  see above
        reply = (number, await answer(method, args), None)
    except Exception as error:  # noqa: BLE001  it is the child's answer
        reply = (number, None, _picklable(error))
    writer.write(_frame(reply))


def _picklable(error: Exception) -> Exception:
    """Return an error as it is if it survives pickling, else its text."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    except Exception:  # noqa: BLE001  errors' constructors raise what they like
        return PubsubTransportError(f"{type(error).__name__}: {error}")
    return error


class ForkableSession(Protocol):
    """What a fork needs of a session."""

    @property
    def pid(self) -> int:
        """The process that made it."""

    def serve_child(self, sock: socket.socket) -> None:
        """Publish for a child just forked, whose requests come over ``sock``."""

    def become_forked(self, sock: socket.socket | None) -> None:
        """Ask the parent's session over ``sock`` from now on; None: that is not possible."""


class _Fork:
    """The fork under way, if any; only one at a time, so that no sibling inherits its sockets."""

    def __init__(
        self, sessions: Callable[[], Iterable[ForkableSession]], in_child: Callable[[], None]
    ) -> None:
        self._sessions = sessions
        self._on_child = in_child
        self._lock = threading.Lock()
        self._pairs: list[tuple[ForkableSession, socket.socket, socket.socket]] = []

    def before(self) -> None:
        self._lock.acquire()
        own = [each for each in self._sessions() if each.pid == os.getpid()]
        self._pairs = [(session, *socket.socketpair()) for session in own]

    def in_parent(self) -> None:
        pairs, self._pairs = self._pairs, []
        self._lock.release()
        for session, ours, theirs in pairs:
            theirs.close()
            session.serve_child(ours)

    def in_child(self) -> None:
        self._lock = threading.Lock()
        pairs, self._pairs = self._pairs, []
        for session in self._sessions():
            session.become_forked(None)
        for session, ours, theirs in pairs:
            ours.close()
            session.become_forked(theirs)
        self._on_child()


def watch_forks(
    sessions: Callable[[], Iterable[ForkableSession]], in_child: Callable[[], None]
) -> None:
    """From now on, give forked children relays to ``sessions()``; call ``in_child`` in them."""
    fork = _Fork(sessions, in_child)
    os.register_at_fork(
        before=fork.before, after_in_parent=fork.in_parent, after_in_child=fork.in_child
    )
