"""Headers: what a request says, and the header blocks of answers.

Requests are decoded by ``hpack``. Answers have the same few headers each time: they are written
as literals that the client's table does not keep, so their bytes never change, and no table of
ours has to be kept in step.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from hpack import Decoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from convotic_emulator.grpc.messages import Metadata

__all__ = ["Request", "RequestDecoder", "answer_headers", "literals", "refusal_headers", "trailers"]

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


@dataclass(frozen=True, slots=True)
class Request:
    """What the headers of a request say."""

    path: str
    #: How its messages are compressed, if they are.
    encoding: str
    #: What the client gives the call, None for ever.
    timeout_seconds: float | None
    #: The HTTP status that refuses what is no call of gRPC, else 0.
    refused_with: int


class RequestDecoder:
    """Decodes the header blocks of one connection, in the order they come.

    A client's calls differ in little: a block that was seen before means what it meant, as long as
    no header was added to the table since.
    """

    def __init__(self, max_bytes: int) -> None:
        self._decoder = Decoder(max_header_list_size=max_bytes)
        self._table = self._decoder.header_table.dynamic_entries
        self._seen: dict[bytes, Request] = {}

    def decode(self, block: bytes) -> Request:
        """Return what a block says.

        Raises:
            HPACKError: it can't be decoded; nor can what comes after it.
        """
        request = self._seen.get(block)
        if request is not None:
            return request
        before = len(self._table), self._table[0] if self._table else None
        request = _read(dict(self._decoder.decode(block, raw=True)))
        now = len(self._table), self._table[0] if self._table else None
        if before[0] != now[0] or before[1] is not now[1] or len(self._seen) >= _MAX_SEEN:
            self._seen.clear()
        elif block and block[0] & _KIND_BITS != _SIZE_UPDATE:  # that changes the table's future
            self._seen[block] = request
        return request


def _read(headers: Mapping[bytes, bytes]) -> Request:
    refused_with = 0
    timeout_seconds: float | None = None
    if headers.get(b":method") != b"POST":
        refused_with = 405
    elif not headers.get(b"content-type", b"").startswith(b"application/grpc"):
        refused_with = 415
    elif (timeout := headers.get(b"grpc-timeout")) is not None:
        if (match := _TIMEOUT.fullmatch(timeout)) is not None:
            timeout_seconds = int(match[1]) * _UNIT_SECONDS[match[2]]
        else:
            refused_with = 400
    return Request(
        headers.get(b":path", b"").decode("ascii", "replace"),
        headers.get(b"grpc-encoding", b"identity").decode("ascii", "replace"),
        timeout_seconds,
        refused_with,
    )


def answer_headers(metadata: Metadata, encodings: str) -> bytes:
    """Return the header block that begins each answer."""
    return _STATUS_200 + literals(
        [
            ("content-type", "application/grpc"),
            ("grpc-accept-encoding", encodings),
            *metadata,
        ]
    )


def refusal_headers(status: int) -> bytes:
    """Return the header block that answers what is not a call of gRPC, with an HTTP status."""
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
