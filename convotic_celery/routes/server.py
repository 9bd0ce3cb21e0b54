"""The server behind routes and dashboard: uvicorn, with a time limit for a request's head."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["serve_on"]

#: Exit code, as uvicorn's.
_NOT_STARTED = 3
#: From a connection, or the first byte of a further request, to the end of the request's headers.
#: uvicorn has a limit for idle connections alone; the body's is body.py's.
HEAD_SECONDS = 15.0


def serve_on(
    listener: socket.socket,
    api: Starlette,
    *,
    stop_seconds: int | None = None,
    access_log: bool = True,
    on_ready: Callable[[], object] = bool,
    on_stopping: Callable[[], object] = bool,
) -> None:
    """Serve the application until SIGTERM or SIGINT, which end it in order. Blocks.

    ``on_ready`` is called once requests are answered, ``on_stopping`` once no connection is taken
    any more. Requests that run then get ``stop_seconds``; None: what they need.

    Raises:
        SystemExit: A module's lifespan has failed.
    """
    # uvicorn raises the signal once more when it has stopped. By default SIGTERM would then kill
    # the process, with what it has created on the broker.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config = uvicorn.Config(
        api,
        log_config=None,
        http=PunctualProtocol,
        server_header=False,
        timeout_graceful_shutdown=stop_seconds,
        access_log=access_log,
    )
    server = _AnnouncingServer(config, on_ready, on_stopping)
    with contextlib.suppress(KeyboardInterrupt):
        server.run([listener])
        if not server.started:
            raise SystemExit(_NOT_STARTED)


class _AnnouncingServer(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        on_ready: Callable[[], object],
        on_stopping: Callable[[], object],
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._on_stopping = on_stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for each in (*self.servers, *(sockets or ())):
            each.close()  # uvicorn's first step, too
        self._on_stopping()
        await super().shutdown(sockets=sockets)


class PunctualProtocol(H11Protocol):
    """Closes a connection on which no complete request arrives in time."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Wait no longer once a request is being answered."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_watching()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_watching()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_watching(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
