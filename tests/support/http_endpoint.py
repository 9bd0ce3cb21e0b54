"""An HTTP endpoint that notes what it gets and answers as a test wants."""

from __future__ import annotations

import ssl
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

__all__ = ["Endpoint", "Request"]


@dataclass
class Request:
    """What came; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


class Endpoint:
    """``with Endpoint() as endpoint: endpoint.url``; ``statuses`` come first, then 204.

    With a ``certificate`` (of localhost, and its key, as PEM) it speaks HTTPS.
    """

    def __init__(self, *statuses: int, certificate: Path | None = None) -> None:
        self.requests: list[Request] = []
        self.statuses = deque(statuses)
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # http.server's
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {key.lower(): value for key, value in self.headers.items()}
                endpoint.requests.append(Request(self.path, headers, body))
                status = 204
                with suppress(IndexError):  # the last may go to the request of another thread
                    status = endpoint.statuses.popleft()
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._server.server_port}/push?token=t"
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.url = f"https://localhost:{self._server.server_port}/push?token=t"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
