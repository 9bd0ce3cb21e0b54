"""A task's body, decompressed within bounds; with kombu's own compressors."""

from __future__ import annotations

import bz2
import tracemalloc
import zlib

import pytest
from kombu import compression as formats

from convotic_pubsub.celery import compressed
from convotic_pubsub.celery.compressed import expand

FORMATS = ["gzip", "bzip2", "lzma", "brotli", "zstd"]
#: Those that may have one stream after another.
SEVERAL = ["bzip2", "lzma", "zstd"]


def compress(body: bytes, name: str) -> bytes:
    return bytes(formats.compress(body, name)[0])


@pytest.mark.parametrize("name", FORMATS)
def test_what_kombu_compresses_expands_to_the_same(name: str) -> None:
    """Whether it is empty, short, or longer than a step."""
    for body in (b"", b"[[1, 2], {}, {}]", bytes(range(256)) * 5_000):
        assert expand(compress(body, name), name) == body


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_damaged_or_ends_early_is_said(name: str) -> None:
    """The error names the format."""
    whole = compress(bytes(range(256)) * 4, name)
    for body in (b"", whole[:-1], b"\xff" * 100):
        with pytest.raises(ValueError, match=f"the body is not what it says, {name}: "):
            expand(body, name)


@pytest.mark.parametrize("name", FORMATS)
def test_a_bomb_is_not_expanded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor behind a small stream. (To make one of a hundred megabytes takes seconds.)"""
    monkeypatch.setattr(compressed, "MAX_EXPANDED_BYTES", 2_000_000)
    bomb = compress(bytes(16_000_000), name)
    for body in (bomb, compress(b"small", name) + bomb)[: 2 if name in SEVERAL else 1]:
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match="expands to more than 2,000,000 bytes"):
                expand(body, name)
            assert tracemalloc.get_traced_memory()[1] < 14_000_000  # lzma's window is 8 MB
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("name", SEVERAL)
def test_a_body_may_be_several_streams_but_not_any_number(name: str) -> None:
    """Ten megabytes of empty streams kept a worker busy for minutes: each copied the rest."""
    assert expand(compress(b"a", name) + compress(b"b", name), name) == b"ab"
    with pytest.raises(ValueError, match="more than 10,000 streams"):
        expand(compress(b"", name) * 100_000, name)


def test_what_is_behind_the_end_of_gzip_is_ignored() -> None:
    """As zlib and kombu do."""
    assert expand(zlib.compress(b"a") + b"b", "gzip") == b"a"


@pytest.mark.parametrize("name", ["rot13", "", 5, None, "x-ours"])
def test_other_formats_are_left_to_kombu(name: object) -> None:
    """It refuses those that it does not know, and has those that an application has registered."""
    formats.register(bz2.compress, lambda body: body, "application/x-ours", aliases=["x-ours"])
    assert expand(b"x", name) is None
