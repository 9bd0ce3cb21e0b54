"""The server behind ``convotic dashboard``: uvicorn, on a socket that is open already."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    import socket

    from starlette.applications import Starlette

__all__ = ["serve"]


def serve(application: Starlette, listener: socket.socket) -> None:
    """Serve the dashboard until SIGTERM or SIGINT. Blocks.

    Both end it in order: what it has created on the broker for workers' answers goes with it.
    """
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    # uvicorn raises the signal once more when it has stopped; by default that kills the process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
