"""Header fields: what a request's say, and the blocks that answers begin and end with.

``hpack`` decodes requests. Answers have the same few fields each time: they are written as
literals that the client's table does not keep, so their bytes never change, and no table has to
be kept in step.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from hpack import Decoder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from convotic_emulator.grpc.messages import Metadata

__all__ = [
    "HeaderDecoder",
    "MalformedHeaders",
    "Request",
    "answer_headers",
    "check_trailers",
    "literals",
    "refusal_headers",
    "trailers",
]

#: ``:status: 200`` is entry 8 of HPACK's static table.
_STATUS_200 = b"\x88"
#: Header blocks that are remembered for each connection.
_MAX_SEEN = 64
#: A block may begin with a new size of the table (RFC 7541, section 6.3).
_KIND_BITS, _SIZE_UPDATE = 0b1110_0000, 0b0010_0000
#: Integers: all bits of the prefix are set when more follows, seven bits a byte.
_PREFIX = 0x7F
_CONTINUES = 0x80
#: Printable ASCII but ``%``: what grpc-message carries as it is.
_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNIT_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

#: RFC 9113, section 8.2.1.
_NAME = re.compile(rb"[^\x00-\x20A-Z:\x7f-\xff]+")
_VALUE = re.compile(rb"(?:[^\x00\r\n \t](?:[^\x00\r\n]*[^\x00\r\n \t])?)?")
#: Section 8.2.2: fields of HTTP/1.1's connections.
_OF_CONNECTIONS = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
#: Section 8.3.1.
_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_REQUIRED = (b":method", b":scheme", b":path")


Fields: TypeAlias = Sequence[tuple[bytes, bytes]]


class MalformedHeaders(Exception):
    """Header fields break a rule of RFC 9113, section 8; their stream ends."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a request's header fields say."""

    path: str
    #: How its messages are compressed, "identity" for not at all.
    encoding: str
    #: The client's limit for the call, None for none.
    timeout_seconds: float | None
    #: How many bytes of data follow, None where it is not said.
    content_length: int | None
    #: The HTTP status that refuses what is no gRPC call, else 0.
    refused_with: int


class HeaderDecoder:
    """Decodes a connection's header blocks, in the order of their arrival.

    A client's calls differ in little: a block that was seen before means what it meant then, as
    long as HPACK's table has the same fields since, and the same size.
    """

    def __init__(self, max_bytes: int) -> None:
        self._decoder = Decoder(max_header_list_size=max_bytes)
        self._table = self._decoder.header_table.dynamic_entries
        self._seen: dict[bytes, Request] = {}

    def request(self, block: bytes) -> Request:
        """Return what the fields of a request say.

        Raises:
            HPACKError: the block can't be decoded; nor can later ones.
            MalformedHeaders: the fields break a rule.
        """
        request = self._seen.get(block)
        if request is None:
            before = self._newest
            request = _request(self.decode(block))
            # A block that adds to the table, or changes its size, has to be decoded each time.
            if self._newest is before and block[0] & _KIND_BITS != _SIZE_UPDATE:
                self._seen[block] = request
        return request

    def decode(self, block: bytes) -> Fields:
        """Return a block's fields; every block must be decoded, used or not.

        Raises:
            HPACKError: the block can't be decoded; nor can later ones.
        """
        table = self._decoder.header_table
        before, newest = (len(self._table), table.maxsize), self._newest
        fields: list[Any] = list(self._decoder.decode(block, raw=True))
        # In a larger table there is room for a field that has been too large to be kept.
        is_same = before == (len(self._table), table.maxsize) and newest is self._newest
        if not is_same or len(self._seen) >= _MAX_SEEN:
            self._seen.clear()
        return fields

    @property
    def _newest(self) -> Any:
        return self._table[0] if self._table else None


def _request(fields: Fields) -> Request:
    pseudo = [name for name, _ in fields if name.startswith(b":")]
    if any(name.startswith(b":") for name, _ in fields[len(pseudo) :]):
        raise MalformedHeaders("a pseudo-header field stands behind others")
    if not _PSEUDO.issuperset(pseudo) or len(set(pseudo)) < len(pseudo):
        raise MalformedHeaders("a pseudo-header field is unknown or repeated")
    _check(fields[len(pseudo) :])
    headers = dict(fields)
    if not all(headers.get(name) for name in _REQUIRED):
        raise MalformedHeaders(":method, :scheme or :path is missing")
    length = headers.get(b"content-length")
    if length is not None and not length.isdigit():
        raise MalformedHeaders("content-length is no number")
    refused_with = 0
    timeout_seconds: float | None = None
    if headers[b":method"] != b"POST":
        refused_with = 405
    elif not headers.get(b"content-type", b"").startswith(b"application/grpc"):
        refused_with = 415
    elif (timeout := headers.get(b"grpc-timeout")) is not None:
        if (match := _TIMEOUT.fullmatch(timeout)) is not None:
            timeout_seconds = int(match[1]) * _UNIT_SECONDS[match[2]]
        else:
            refused_with = 400
    return Request(
        headers[b":path"].decode("ascii", "replace"),
        headers.get(b"grpc-encoding", b"identity").decode("ascii", "replace"),
        timeout_seconds,
        None if length is None else int(length),
        refused_with,
    )


def check_trailers(fields: Fields, *, ends_stream: bool) -> None:
    """Check the fields behind a request's data (RFC 9113, section 8.1).

    Raises:
        MalformedHeaders: they break a rule.
    """
    if not ends_stream:
        raise MalformedHeaders("trailers do not end the request")
    if any(name.startswith(b":") for name, _ in fields):
        raise MalformedHeaders("trailers have pseudo-header fields")
    _check(fields)


def _check(fields: Fields) -> None:
    """Check ordinary fields (section 8.2)."""
    for name, value in fields:
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise MalformedHeaders(f"the header field {name[:100]!r} has a forbidden character")
        if name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
            raise MalformedHeaders(f"the header field {name!r} belongs to HTTP/1.1")


def answer_headers(metadata: Metadata, encodings: str) -> bytes:
    """Return the header block that every answer begins with."""
    return _STATUS_200 + literals(
        [
            ("content-type", "application/grpc"),
            ("grpc-accept-encoding", encodings),
            *metadata,
        ]
    )


def refusal_headers(status: int) -> bytes:
    """Return the header block that refuses what is no gRPC call, with an HTTP status."""
    return literals([(":status", str(status))])


def trailers(status: int, message: str = "", metadata: Metadata = ()) -> bytes:
    """Return the header block that ends a call."""
    fields: list[tuple[str, str | bytes]] = [("grpc-status", str(int(status)))]
    if message:
        fields.append(("grpc-message", quote(message, safe=_PLAIN)))
    return literals([*fields, *metadata])


def literals(fields: Iterable[tuple[str, str | bytes]]) -> bytes:
    """Encode headers as literals without indexing (RFC 7541, section 6.2.2)."""
    block = bytearray()
    for name, value in fields:
        block.append(0)
        _append_string(block, name.encode())
        text = value if isinstance(value, bytes) else value.encode()
        _append_string(block, b64encode(text) if name.endswith("-bin") else text)
    return bytes(block)


def _append_string(block: bytearray, text: bytes) -> None:
    """Append a length in the integer coding with a prefix of seven bits, and the text."""
    length = len(text)
    if length < _PREFIX:
        block.append(length)
    else:
        block.append(_PREFIX)
        length -= _PREFIX
        while length >= _CONTINUES:
            block.append(length % _CONTINUES | _CONTINUES)
            length //= _CONTINUES
        block.append(length)
    block += text
