"""Answers ``/livez``, ``/readyz`` and ``/metrics`` over HTTP, on threads of its own.

A thread, not a loop: it answers while the handlers' loop is blocked. Each answer is made of what is
known already, without a call to any server.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from convotic_celery.errors import ConfigurationError

if TYPE_CHECKING:
    from convotic_celery.settings import Settings

__all__ = ["Answer", "Source", "TelemetryServer", "json_answer", "serve"]

logger = logging.getLogger(__name__)

#: How long a client may take to ask.
_CLIENT_SECONDS = 5.0

_JSON = "application/json"


class Answer(NamedTuple):
    """What a path is answered with."""

    status: int
    body: bytes
    content_type: str = _JSON


class Source(Protocol):
    """Makes the answers. Called on the server's threads, several at a time."""

    def answer(self, path: str, accept: str, query: str = "") -> Answer | None:
        """Return the answer of ``/livez``, ``/readyz`` or ``/metrics``; None for another path."""
        ...


def json_answer(status: int, value: object) -> Answer:
    """Return an answer in JSON, on one line."""
    return Answer(status, json.dumps(value).encode() + b"\n")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    source: Source

    def server_bind(self) -> None:
        """Bind, without asking a name server who this is."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "worker", 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: clients hang up all the time."""
        del request, client_address
        logger.debug("A request for health or metrics failed: %s", sys.exception())


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _CLIENT_SECONDS
    server_version = "convotic"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        path, _, query = self.path.partition("?")
        accept = self.headers.get("Accept", "")
        answer = self.server.source.answer(path, accept, query) or json_answer(
            404, {"status": "not found", "paths": ["/livez", "/readyz", "/metrics"]}
        )
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_GET  # noqa: N815 - the base's name

    def address_string(self) -> str:
        """A Unix socket's client has no address."""
        return "client"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Log nothing: probes come every few seconds."""


class TelemetryServer:
    """Serves a source on a TCP port, or a Unix socket. Start and stop once each.

    Args:
        source: What the answers are made of.
        host: Address to listen on.
        port: 0 takes a free one.
        path: A Unix socket, instead of host and port.

    Raises:
        OSError: The port is taken, or may not be used.
    """

    def __init__(
        self, source: Source, *, host: str = "", port: int = 0, path: Path | None = None
    ) -> None:
        address: Any = (host, port) if path is None else str(path)
        self._server = _Server(address, _Handler, bind_and_activate=False)
        self._path = path
        if path is not None:
            self._server.socket.close()
            self._server.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            path.unlink(missing_ok=True)
        elif ":" in host:
            self._server.socket.close()
            self._server.socket = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        self._server.source = source
        try:
            self._server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._server.server_bind()
            if path is not None:
                path.chmod(0o600)
            self._server.server_activate()
        except BaseException:
            self._server.server_close()
            raise

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self._server.socket.getsockname()[1])

    def start(self) -> None:
        """Start to answer."""
        threading.Thread(
            target=self._server.serve_forever, name="convotic-telemetry", daemon=True
        ).start()

    def stop(self) -> None:
        """Stop answering, and give the port back."""
        self._server.shutdown()
        self._server.server_close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def serve(source: Source, settings: Settings) -> TelemetryServer:
    """Start to answer, where the settings say.

    Raises:
        ConfigurationError: The port is taken, or may not be used.
    """
    try:
        if settings.health_socket is not None:
            server = TelemetryServer(source, path=settings.health_socket)
        else:
            server = TelemetryServer(
                source, host=settings.health_host, port=settings.health_port or 0
            )
    except OSError as error:
        raise ConfigurationError(
            f"CONVOTIC_HEALTH_PORT: can't listen on {settings.health_host}:{settings.health_port}: "
            f"{error.strerror or error}. Give another port, or leave it out."
        ) from None
    server.start()
    if settings.health_socket is None:
        logger.info(
            "Health and metrics: http://%s:%d/livez /readyz /metrics",
            settings.health_host,
            server.port,
        )
    return server
