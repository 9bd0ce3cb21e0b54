"""Compressed data: the attribute ``content-encoding: gzip``. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from convotic_celery.errors import InvalidMessage

__all__ = ["decompress", "is_compressed", "looks_compressed"]

#: Largest decompressed size; ten times Pub/Sub's limit, so that no message fills the memory.
MAX_DATA_BYTES = 100_000_000
#: A member has at least 20 bytes, and takes as long as some kilobytes of data.
MAX_MEMBERS = 10_000
#: Passed to a member at once: what it leaves of that is copied.
_CHUNK_BYTES = 16_384
#: zlib's number for "with gzip's header".
_GZIP_FORMAT = 31
_MAGIC = b"\x1f\x8b"


def looks_compressed(raw: bytes) -> bool:
    """Return whether the data begins like gzip; no JSON does."""
    return raw.startswith(_MAGIC)


def is_compressed(attributes: Mapping[str, str]) -> bool:
    """Say whether the attributes name an encoding."""
    return _encoding_of(attributes) not in ("", "identity")


def _encoding_of(attributes: Mapping[str, str]) -> str:
    return next(
        (v.strip().lower() for name, v in attributes.items() if name.lower() == "content-encoding"),
        "",
    )


def decompress(raw: bytes, attributes: Mapping[str, str]) -> bytes:
    """Return the data, decompressed if its attributes say that it is compressed.

    Raises:
        InvalidMessage: The data is not what they say, exceeds 100 MB, or has over 10,000 members.
    """
    encoding = _encoding_of(attributes)
    if not raw or not is_compressed(attributes):
        return raw
    if encoding not in ("gzip", "x-gzip"):
        raise InvalidMessage(f"content-encoding is {encoding[:40]!r}; only gzip is supported")
    parts: list[bytes] = []
    size = position = members = 0
    while position < len(raw):  # gzip data may be several members, one after another
        members += 1
        if members > MAX_MEMBERS:
            raise InvalidMessage(f"data is gzip of more than {MAX_MEMBERS:,} members")
        member = zlib.decompressobj(_GZIP_FORMAT)
        while not member.eof:
            if position == len(raw):
                raise InvalidMessage("data is truncated gzip")
            chunk = raw[position : position + _CHUNK_BYTES]
            try:
                part = member.decompress(chunk, MAX_DATA_BYTES + 1 - size)
            except zlib.error as error:
                raise InvalidMessage(f"data is not gzip: {error}") from None
            position += len(chunk) - len(member.unused_data)
            parts.append(part)
            size += len(part)
            if size > MAX_DATA_BYTES:
                raise InvalidMessage(f"data decompresses to more than {MAX_DATA_BYTES:,} bytes")
    return b"".join(parts)
