"""Compressed data: the attribute ``content-encoding: gzip``. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from convotic_celery.errors import InvalidMessage

__all__ = ["decompress", "looks_compressed"]

#: Largest decompressed size; ten times Pub/Sub's limit, so that no message fills the memory.
MAX_DATA_BYTES = 100_000_000
#: zlib's number for "with gzip's header".
_GZIP_FORMAT = 31
_MAGIC = b"\x1f\x8b"


def looks_compressed(raw: bytes) -> bool:
    """Return whether the data begins like gzip; no JSON does."""
    return raw.startswith(_MAGIC)


def decompress(raw: bytes, attributes: Mapping[str, str]) -> bytes:
    """Return the data, decompressed if its attributes say that it is compressed.

    Raises:
        InvalidMessage: The data is not what they say, or would exceed 100 MB.
    """
    encoding = next(
        (v.strip().lower() for name, v in attributes.items() if name.lower() == "content-encoding"),
        "",
    )
    if encoding in ("", "identity") or not raw:
        return raw
    if encoding not in ("gzip", "x-gzip"):
        raise InvalidMessage(f"content-encoding is {encoding[:40]!r}; only gzip is supported")
    parts, size = [], 0
    while raw:  # gzip data may be several members, one after another
        member = zlib.decompressobj(_GZIP_FORMAT)
        try:
            part = member.decompress(raw, MAX_DATA_BYTES + 1 - size)
        except zlib.error as error:
            raise InvalidMessage(f"data is not gzip: {error}") from None
        parts.append(part)
        size += len(part)
        if size > MAX_DATA_BYTES:
            raise InvalidMessage(f"data decompresses to more than {MAX_DATA_BYTES:,} bytes")
        if not member.eof:
            raise InvalidMessage("data is truncated gzip")
        raw = member.unused_data
    return b"".join(parts)
