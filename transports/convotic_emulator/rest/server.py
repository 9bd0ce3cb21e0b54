"""Serves connections of HTTP/1.1 with the methods of the gRPC server."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING

from convotic_emulator.rest.http1 import BadRequest, Request, read_request, response
from convotic_emulator.rest.routes import find
from convotic_emulator.rest.transcoding import error_of, json_of, request_of
from convotic_emulator.services.rpc import CallError, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from convotic_emulator.services.rpc import Method

__all__ = ["Rest"]

logger = logging.getLogger(__name__)

_BROWSER = "Pages of browsers may not use this port: it has no authentication, and any page could."


class Rest:
    """Pub/Sub's REST API.

    Args:
        methods: by path, as the gRPC server has them.
        on_handled: called when a request has been handled to its first wait.
        documents: what GET answers at a path, beside the methods.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        on_handled: Callable[[], None],
        documents: Mapping[str, Callable[[], object]],
    ) -> None:
        self._methods = methods
        self._documents = documents
        self._on_handled = on_handled

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection, one after the other."""
        try:
            while (request := await read_request(reader, writer)) is not None:
                writer.write(await self._answer(request))
                await writer.drain()
                if not request.is_persistent:
                    return
        except BadRequest as error:
            body = _error(error.status, str(error), error.status.phrase)
            writer.write(response(error.status, body, is_persistent=False))
            await writer.drain()

    def _document(self, request: Request) -> bytes | None:
        """Answer what is no method."""
        keep = request.is_persistent
        if request.verb in ("GET", "HEAD") and request.path == "/":
            # A health check, which Google's emulator answers so.
            body = b"Ok\n" if request.verb == "GET" else b""
            return response(200, body, is_persistent=keep, kind="text/plain")
        if request.verb == "GET" and request.path in self._documents:
            body = json.dumps(self._documents[request.path]()).encode()
            return response(200, body, is_persistent=keep)
        return None

    async def _answer(self, request: Request) -> bytes:
        keep = request.is_persistent
        if "origin" in request.headers:
            body = _error(403, _BROWSER, "PERMISSION_DENIED")
            return response(403, body, is_persistent=keep)
        if (document := self._document(request)) is not None:
            return document
        match = find(request.verb, request.path)
        if match is None:
            text = f"{request.verb} {request.path[:200]} is no method of Pub/Sub's REST API."
            return response(404, _error(404, text, "NOT_FOUND"), is_persistent=keep)
        try:
            message = request_of(match, request.query, request.body)
            method = self._methods[match.route.method]
            running = asyncio.ensure_future(method.serve(message, _Call(request.headers)))
            asyncio.get_running_loop().call_soon(self._on_handled)
            return response(200, json_of(await running), is_persistent=keep)
        except CallError as error:
            return response(*error_of(error), is_persistent=keep)
        except Exception as error:
            logger.exception("A method failed.")
            failure = CallError(Status.INTERNAL, f"Unexpected {type(error)}: {error}")
            return response(*error_of(failure), is_persistent=keep)


class _Call:
    """What a unary method sees of its call."""

    #: Nothing is delivered on a connection of HTTP/1.1.
    peer: object = None

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._ends_at: float | None = None
        #: As Google's own servers take it; others send none.
        timeout = headers.get("x-server-timeout", "")
        if timeout.replace(".", "", 1).isdecimal():
            self._ends_at = asyncio.get_running_loop().time() + float(timeout)

    def time_remaining(self) -> float | None:
        """Return the seconds until the client's deadline, None if it has none."""
        if self._ends_at is None:
            return None
        return max(0.0, self._ends_at - asyncio.get_running_loop().time())


def _error(code: int, message: str, status: str) -> bytes:
    content = {"error": {"code": int(code), "message": message, "status": status}}
    return json.dumps(content, indent=2).encode() + b"\n"
