"""Decompressing a task's body within bounds: ten megabytes can hold ten gigabytes. Pure."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from kombu.compression import get_decoder

__all__ = ["MAX_EXPANDED_BYTES", "expand"]

#: Ten times what Pub/Sub takes uncompressed.
MAX_EXPANDED_BYTES = 100_000_000
_STEP_BYTES = 1_000_000


class _Zlib:
    """zlib's decompressor, called as those of bz2 and lzma."""

    unused_data = b""  # as zlib.decompress, which ignores what is behind the end

    def __init__(self) -> None:
        self._inner = zlib.decompressobj()
        self.needs_input = True

    @property
    def eof(self) -> bool:
        """Whether the end was reached."""
        return self._inner.eof

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return at most so much."""
        expanded = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = not self._inner.unconsumed_tail and len(expanded) < max_length
        return expanded


#: By kombu's decoder. A format that is not here (brotli, zstd: only where they are installed) can't
#: be decompressed step by step.
_DECOMPRESSORS: dict[Callable[..., Any], Callable[[], Any]] = {
    zlib.decompress: _Zlib,
    bz2.decompress: bz2.BZ2Decompressor,
    lzma.decompress: lzma.LZMADecompressor,
}


def expand(body: bytes, compression: object) -> bytes | None:
    """Return a body decompressed; None where that is for kombu to do, or to refuse.

    Args:
        body: as it came.
        compression: kombu's name of the format, as it came.

    Raises:
        ValueError: it is damaged, or expands to more than 100 MB.
    """
    make = _find_decompressor(compression)
    if make is None:
        return None
    parts: list[bytes] = []
    size = 0
    try:
        for part in _read_parts(make, body):
            parts.append(part)
            size += len(part)
            if size > MAX_EXPANDED_BYTES:
                break
    except (zlib.error, OSError, EOFError, lzma.LZMAError) as error:
        raise ValueError(f"the body is not what it says, {compression}: {error}") from error
    if size > MAX_EXPANDED_BYTES:
        raise ValueError(
            f"the body is compressed ({compression}) and expands to more than "
            f"{MAX_EXPANDED_BYTES:,} bytes; it is not decompressed"
        )
    return b"".join(parts)


def _find_decompressor(compression: object) -> Callable[[], Any] | None:
    try:
        return (
            _DECOMPRESSORS.get(get_decoder(compression)) if isinstance(compression, str) else None
        )
    except KeyError:  # unknown
        return None


def _read_parts(make: Callable[[], Any], body: bytes) -> Iterator[bytes]:
    """Yield what a body expands to, step by step; bz2 and lzma may have one stream after another.

    A small first stream must not hide what is behind it.
    """
    while body:
        decompressor = make()
        while not decompressor.eof:
            yield decompressor.decompress(body, _STEP_BYTES)
            body = b""
            if decompressor.needs_input and not decompressor.eof:
                raise EOFError("it ends too early")
        body = decompressor.unused_data
