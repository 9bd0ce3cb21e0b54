"""How large a compressed task would become: ten megabytes can hold ten gigabytes."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from kombu.compression import get_decoder

__all__ = ["MAX_EXPANDED_BYTES", "check_expanded_size"]

#: Ten times what Pub/Sub takes uncompressed.
MAX_EXPANDED_BYTES = 100_000_000
_STEP_BYTES = 1_000_000


class _Zlib:
    """zlib's decompressor, called as those of bz2 and lzma."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj()

    @property
    def needs_input(self) -> bool:
        """Whether all that was given has been used up."""
        return not self._inner.unconsumed_tail

    @property
    def eof(self) -> bool:
        """Whether the end was reached."""
        return self._inner.eof

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return at most so much."""
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


#: By kombu's decoder. A format that is not here (brotli, zstd: only where they are installed) can't
#: be asked for its size step by step.
_DECOMPRESSORS: dict[Callable[..., Any], Callable[[], Any]] = {
    zlib.decompress: _Zlib,
    bz2.decompress: bz2.BZ2Decompressor,
    lzma.decompress: lzma.LZMADecompressor,
}


def check_expanded_size(body: bytes, compression: str) -> None:
    """Raise ValueError if the body would expand to more than 100 MB. Keeps nothing of it.

    What can't be decompressed at all is not found here: kombu's attempt says that.
    """
    try:
        make = _DECOMPRESSORS.get(get_decoder(compression))
    except KeyError:
        return
    if make is None:
        return
    decompressor, size, data = make(), 0, body
    try:
        while not decompressor.eof:
            size += len(decompressor.decompress(data, _STEP_BYTES))
            data = b""
            if size > MAX_EXPANDED_BYTES:
                break
            if decompressor.needs_input:
                return
    except (zlib.error, OSError, lzma.LZMAError):
        return
    if size > MAX_EXPANDED_BYTES:
        raise ValueError(
            f"the body is compressed ({compression}) and expands to more than "
            f"{MAX_EXPANDED_BYTES:,} bytes; it is not decompressed"
        )
