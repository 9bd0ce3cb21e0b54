"""The listening side: sockets, all connections, and the graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import TYPE_CHECKING

from convotic_emulator.grpc.connection import Connection, Http1
from convotic_emulator.grpc.headers import answer_headers
from convotic_emulator.grpc.http2 import Service
from convotic_emulator.grpc.messages import ENCODINGS, Metadata
from convotic_emulator.grpc.status import CallError, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from convotic_emulator.grpc.call import Method

__all__ = ["GrpcServer"]

#: A name may stand for addresses that this machine does not have, like ::1.
_ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
#: How long clients have to take what was sent before the end.
_CLOSE_SECONDS = 1.0


class GrpcServer:
    """Serves methods to any gRPC client, without TLS. Belongs to one event loop.

    Args:
        methods: by path, ``/package.Service/Method``.
        name: the server's name, in the error for an unknown method.
        metadata: initial metadata of every answer.
        max_request_bytes: the limit of one message; a larger one is RESOURCE_EXHAUSTED.
        on_handled: called when the requests that came together have been handled, each to its
            first wait.
        http1: serves clients that speak HTTP/1.1; without it they are refused.
        stuck_seconds: how long a client may send requests and read no answers.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        *,
        name: str,
        metadata: Metadata = (),
        max_request_bytes: int = 4 << 20,
        on_handled: Callable[[], None] = lambda: None,
        http1: Http1 | None = None,
        stuck_seconds: float = 30.0,
    ) -> None:
        self.service = Service(
            methods,
            name,
            answer_headers(metadata, ENCODINGS),
            max_request_bytes,
            stuck_seconds,
        )
        self.on_handled = on_handled
        self.http1 = http1
        self._listeners: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._is_stopping = False
        self._all_closed: asyncio.Future[None] | None = None

    async def listen(self, host: str, port: int) -> int:
        """Listen on all addresses of a host, on one port (0: a free one), and return it.

        Raises:
            OSError: the port is taken, or the host is not of this machine.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        sockets: list[socket.socket] = []
        failure: OSError | None = None
        for family, *_, address in found:
            try:
                sockets.append(_bound(family, (str(address[0]), port)))
            except OSError as error:
                failure = error
                if error.errno not in _ABSENT:
                    break
            else:
                port = sockets[-1].getsockname()[1]
                failure = None
        if failure is not None:
            for bound in sockets:
                bound.close()
            raise failure
        for bound in sockets:
            self._listeners.append(await loop.create_server(lambda: Connection(self), sock=bound))
        return port

    async def stop(self, grace_seconds: float) -> None:
        """Take no more calls, give running ones ``grace_seconds``, then end them as UNAVAILABLE."""
        self._is_stopping = True
        for listener in self._listeners:
            listener.close()
        self.send_goaway()
        tasks = [task for connection in self._connections for task in connection.tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=grace_seconds)
        for connection in list(self._connections):
            connection.end_calls(CallError(Status.UNAVAILABLE, "The server is shutting down."))
            connection.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._gone()
        for connection in list(self._connections):
            connection.abort()
        await self._gone()

    def send_goaway(self) -> None:
        """Ask all clients to connect again for new calls; running ones go on."""
        for connection in list(self._connections):
            connection.leave()

    @property
    def has_clients(self) -> bool:
        """Whether a client is connected."""
        return bool(self._connections)

    def add(self, connection: Connection) -> None:
        """Note an open connection; one that was accepted while stopping is closed."""
        self._connections.add(connection)
        if self._is_stopping:
            connection.abort()

    def remove(self, connection: Connection) -> None:
        """Forget a closed connection."""
        self._connections.discard(connection)
        if not self._connections and self._all_closed is not None and not self._all_closed.done():
            self._all_closed.set_result(None)

    async def _gone(self) -> None:
        """Wait until no connection is open."""
        if self._connections:
            self._all_closed = asyncio.get_running_loop().create_future()
            await self._all_closed


def _bound(family: int, address: tuple[str, int]) -> socket.socket:
    """Return a listening socket; the IPv6 one for all addresses takes IPv4's too."""
    is_any = family == socket.AF_INET6 and address[0] == "::"
    return socket.create_server(
        address,
        family=family,
        backlog=128,
        dualstack_ipv6=is_any and socket.has_dualstack_ipv6(),
    )
