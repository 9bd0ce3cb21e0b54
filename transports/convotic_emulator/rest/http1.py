"""Requests and responses of HTTP/1.1 (RFC 9112), as much as clients of a JSON API use."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

__all__ = ["BadRequest", "Request", "read_request", "response"]

_MAX_HEAD_BYTES = 32 * 1024
_MAX_HEADERS = 100
_REASONS = {int(status): status.phrase for status in HTTPStatus}
#: Base64 makes a third more of the largest publish request.
_MAX_BODY_BYTES = 32 * 1024 * 1024


class BadRequest(Exception):
    """The client sent no HTTP, or too much; the connection ends with ``status``."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """A request. Names of headers are in lower case."""

    verb: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    #: Whether the client may send another on the connection.
    is_persistent: bool


async def read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Request | None:
    """Return the next request, None if the client has closed.

    Raises:
        BadRequest: it can't be read, nor can what comes after it.
        EOFError: the client closed in the middle of it.
    """
    line = await _line(reader)
    if not line:
        return None
    parts = line.split()
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):  # noqa: PLR2004  # verb, URL, version
        raise BadRequest(HTTPStatus.BAD_REQUEST, "This port speaks gRPC, and HTTP/1.1 with JSON.")
    verb, target, version = parts
    headers = await _headers(reader)
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    connection = headers.get("connection", "").lower()
    path, _, query = target.partition("?")
    return Request(
        verb,
        path,
        query,
        headers,
        await _body(reader, headers),
        connection != "close" if version == "HTTP/1.1" else connection == "keep-alive",
    )


def response(
    status: int, body: bytes, *, is_persistent: bool, kind: str = "application/json"
) -> bytes:
    """Return a response's bytes."""
    reason = _REASONS.get(status, "Client Closed Request")
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}; charset=UTF-8\r\n"
        f"Content-Length: {len(body)}\r\nX-Content-Type-Options: nosniff\r\n"
        f"{'' if is_persistent else 'Connection: close' + chr(13) + chr(10)}\r\n"
    )
    return head.encode() + body


async def _headers(reader: asyncio.StreamReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    size = 0
    while line := await _line(reader):
        name, colon, value = line.partition(":")
        size += len(line)
        if (
            not colon
            or name != name.strip()
            or size > _MAX_HEAD_BYTES
            or len(headers) > _MAX_HEADERS
        ):
            raise BadRequest(HTTPStatus.BAD_REQUEST, "The headers are malformed or too large.")
        headers[name.lower()] = value.strip()
    return headers


async def _line(reader: asyncio.StreamReader) -> str:
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return ""
    except asyncio.LimitOverrunError as error:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "A line is too long.") from error
    return line.decode("latin-1").rstrip("\r\n")


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "transfer-encoding" in headers:
        if headers["transfer-encoding"].lower() != "chunked" or "content-length" in headers:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "Transfer-Encoding must be chunked.")
        return await _chunks(reader)
    length = _number(headers.get("content-length", "0"), 10)
    return await reader.readexactly(length)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := _number((await _line(reader)).partition(";")[0].strip(), 16):
        if len(body) + size > _MAX_BODY_BYTES:
            raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large.")
        body += await reader.readexactly(size)
        await _line(reader)
    while await _line(reader):
        pass  # trailers
    return bytes(body)


def _number(text: str, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if not text.isalnum() or number < 0:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "The body's length is no number.")
    if number > _MAX_BODY_BYTES:
        raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large.")
    return number
