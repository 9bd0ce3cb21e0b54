"""Decompressing a task's body within bounds: ten megabytes can hold ten gigabytes. Pure."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from kombu import compression as formats

__all__ = ["MAX_EXPANDED_BYTES", "expand"]

#: Ten times what Pub/Sub takes uncompressed.
MAX_EXPANDED_BYTES = 100_000_000
#: An empty stream has at least 9 bytes, and takes as long as some kilobytes of data.
_MAX_STREAMS = 10_000
#: Given to a decompressor at once: what it leaves of that is copied.
_CHUNK_BYTES = 16_384
_STEP_BYTES = 1_000_000


class _Zlib:
    """zlib's decompressor, called as those of bz2, lzma and zstd.

    It has no ``unused_data``: ``zlib.decompress`` ignores what is behind the end.
    """

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


class _Brotli:
    """brotli's decompressor, called in the same way. An error where something is behind the end."""

    def __init__(self) -> None:
        self._inner: Any = _BROTLI.Decompressor()
        if not hasattr(self._inner, "can_accept_more_data"):
            raise EOFError("brotli has no bounds before version 1.2, so it is not used")
        self.needs_input = True

    @property
    def eof(self) -> bool:
        """Whether the end was reached."""
        return bool(self._inner.is_finished())

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return about so much: brotli fills a block of its own size."""
        expanded: bytes = self._inner.process(data, output_buffer_limit=max_length)
        # It may have taken all of the input and still hold megabytes of output.
        self.needs_input = not expanded and self._inner.can_accept_more_data()
        return expanded


#: By kombu's decoder. What an application registers itself is not here.
_DECOMPRESSORS: dict[Callable[..., Any], Callable[[], Any]] = {
    zlib.decompress: _Zlib,
    bz2.decompress: bz2.BZ2Decompressor,
    lzma.decompress: lzma.LZMADecompressor,
}
_ERRORS: list[type[Exception]] = [zlib.error, OSError, EOFError, lzma.LZMAError]

#: kombu has these where they are installed.
_BROTLI: Any = getattr(formats, "brotli", None)
_ZSTD: Any = getattr(formats, "zstd", None)
if _BROTLI is not None:
    _DECOMPRESSORS[_BROTLI.decompress] = _Brotli
    _ERRORS.append(_BROTLI.error)
if _ZSTD is not None:
    _DECOMPRESSORS[_ZSTD.decompress] = _ZSTD.ZstdDecompressor
    _ERRORS.append(_ZSTD.ZstdError)


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
    except tuple(_ERRORS) as error:
        raise ValueError(f"the body is not what it says, {compression}: {error}") from error
    if size > MAX_EXPANDED_BYTES:
        raise ValueError(
            f"the body is compressed ({compression}) and expands to more than "
            f"{MAX_EXPANDED_BYTES:,} bytes; it is not decompressed"
        )
    return b"".join(parts)


def _find_decompressor(compression: object) -> Callable[[], Any] | None:
    if not isinstance(compression, str):
        return None
    try:
        return _DECOMPRESSORS.get(formats.get_decoder(compression))
    except KeyError:  # unknown
        return None


def _read_parts(make: Callable[[], Any], body: bytes) -> Iterator[bytes]:
    """Yield what a body expands to, step by step; it may be one stream after another.

    A small first stream must not hide what is behind it.
    """
    position = 0
    for _ in range(_MAX_STREAMS):
        decompressor = make()
        while not decompressor.eof:
            chunk = b""
            if decompressor.needs_input:
                chunk = body[position : position + _CHUNK_BYTES]
                position += len(chunk)
                if not chunk:
                    raise EOFError("it ends too early")
            yield decompressor.decompress(chunk, _STEP_BYTES)
        unused: bytes | None = getattr(decompressor, "unused_data", None)
        if unused is None:
            return
        position -= len(unused)
        if position == len(body):
            return
    raise EOFError(f"it has more than {_MAX_STREAMS:,} streams")
