"""The server behind ``convotic dashboard``: uvicorn, on a socket that is open already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    import socket

    from starlette.applications import Starlette

__all__ = ["serve"]


def serve(application: Starlette, listener: socket.socket) -> None:
    """Serve the dashboard until SIGTERM or SIGINT. Blocks."""
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run(sockets=[listener])
