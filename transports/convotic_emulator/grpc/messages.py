"""gRPC messages in a stream of bytes: a flag, a length of four bytes, and the message."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeAlias

from convotic_emulator.grpc.status import CallError, Status

__all__ = ["ENCODINGS", "PREFIX_BYTES", "MessageReader", "Metadata", "RawMessage", "framed"]

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
#: Whether it is compressed, and its bytes.
RawMessage: TypeAlias = tuple[int, bytes]

#: What clients may compress with; for ``grpc-accept-encoding``.
ENCODINGS = "identity,deflate,gzip"
#: What stands before each message.
PREFIX_BYTES = 5
#: zlib's window bits: a zlib header is what gRPC calls deflate; 16 more is gzip's.
_WINDOW_BITS = {"deflate": zlib.MAX_WBITS, "gzip": zlib.MAX_WBITS | 16}


def framed(message: bytes) -> bytes:
    """Return a message as it is sent."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class MessageReader:
    """Cuts a call's data into messages. They stay compressed until a handler reads them."""

    __slots__ = ("_encoding", "_max_bytes", "buffer")

    def __init__(self, encoding: str, max_bytes: int) -> None:
        #: A message that is not complete.
        self.buffer = bytearray()
        self._encoding = encoding
        self._max_bytes = max_bytes

    def feed(self, data: bytes) -> list[RawMessage]:
        """Return the messages that ``data`` completes.

        Raises:
            CallError: one is too large.
        """
        size = int.from_bytes(data[1:PREFIX_BYTES], "big") + PREFIX_BYTES
        if not self.buffer and len(data) == size > PREFIX_BYTES and size <= self._max_bytes:
            return [(data[0], data[PREFIX_BYTES:])]
        buffer = self.buffer
        buffer += data
        found: list[RawMessage] = []
        start = 0
        while len(buffer) - start >= PREFIX_BYTES:
            body = start + PREFIX_BYTES
            length = int.from_bytes(buffer[start + 1 : body], "big")
            if length > self._max_bytes:
                raise self._too_large(length)
            if len(buffer) - body < length:
                break
            found.append((buffer[start], bytes(buffer[body : body + length])))
            start = body + length
        del buffer[:start]
        return found

    def plain(self, message: RawMessage) -> bytes:
        """Return a message's bytes, decompressed.

        Raises:
            CallError: it can't be decompressed, or is too large then.
        """
        is_compressed, data = message
        if not is_compressed:
            return data
        window_bits = _WINDOW_BITS.get(self._encoding)
        if window_bits is None:
            raise CallError(
                Status.UNIMPLEMENTED if self._encoding != "identity" else Status.INTERNAL,
                f"Can't decompress grpc-encoding {self._encoding!r}: use one of {ENCODINGS}.",
            )
        inflater = zlib.decompressobj(window_bits)
        try:
            plain = inflater.decompress(data, self._max_bytes + 1)
        except zlib.error as error:
            raise CallError(Status.INTERNAL, f"Can't decompress a message: {error}.") from error
        if len(plain) > self._max_bytes:
            raise self._too_large(len(plain))
        if not inflater.eof:
            raise CallError(Status.INTERNAL, "Can't decompress a message: it is cut off.")
        return plain

    def _too_large(self, length: int) -> CallError:
        return CallError(
            Status.RESOURCE_EXHAUSTED,
            f"Received message larger than max ({length} vs. {self._max_bytes})",
        )
