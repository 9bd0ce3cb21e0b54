"""One large message costs a bounded amount of time and memory, whatever is in it."""

from __future__ import annotations

import gzip
import time
import tracemalloc
from typing import Any

import pytest
from pydantic import BaseModel

from convotic_celery.errors import InvalidMessage
from convotic_celery.sdk.compression import decompress
from convotic_celery.sdk.message import decode_json, validate_json
from convotic_celery.sdk.payload_type import PayloadType

_GZIP = {"content-encoding": "gzip"}


class Item(BaseModel):
    """Part of a payload."""

    id: int
    tags: list[str]


class Batch(BaseModel):
    """A payload with collections in collections."""

    items: list[Item]


def test_gzip_of_many_empty_members_is_refused() -> None:
    """It took 52 s to find the one that is not empty."""
    raw = gzip.compress(b"") * 495_000 + gzip.compress(b'{"id":1}')
    began = time.monotonic()
    with pytest.raises(InvalidMessage, match="10,000 members"):
        decompress(raw, _GZIP)
    assert time.monotonic() - began < 20


def test_gzip_of_several_members_is_read() -> None:
    """As ``cat`` makes it of several files, also where a member is larger than a chunk."""
    parts = [b"[" + b"1," * 200_000, b"", b"2]"]
    raw = b"".join(gzip.compress(part, compresslevel=0) for part in parts)
    assert decompress(raw, _GZIP) == b"".join(parts)
    with pytest.raises(InvalidMessage, match="truncated"):
        decompress(raw[:-3], _GZIP)


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"[" + b"[]," * 1_100_000 + b"[]]", "1,000,000 objects and arrays"),
        (b"[" + b"1," * 5_100_000 + b"1]", "5,000,000 values"),
    ],
)
def test_data_of_too_many_parts_is_refused_before_it_is_parsed(data: bytes, rule: str) -> None:
    """96 KB of gzip became 2.9 GB of empty lists."""
    tracemalloc.start()
    try:
        with pytest.raises(InvalidMessage, match=rule):
            decode_json(data)
        with pytest.raises(InvalidMessage, match=rule):
            validate_json(data, PayloadType(list[Any]))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("kind", "data", "reason"),
    [
        (list[str], b"[" + b"1," * 1_000_000 + b"1]", "0: Input should be a valid string"),
        (
            dict[str, str],
            b"{" + b",".join(b'"%d":1' % i for i in range(100_000)) + b"}",
            "0: Input should be a valid string",
        ),
        (
            Batch,
            b'{"items":[' + b'{"id":"x","tags":[1,2]},' * 50_000 + b'{"id":1,"tags":[]}]}',
            "items.0.id: Input should be a valid integer",
        ),
    ],
    ids=["list", "dict", "model"],
)
def test_large_wrong_data_is_described_by_its_first_problem(
    kind: Any, data: bytes, reason: str
) -> None:
    """Describing 4.9 million problems took 14 s and 4.3 GB, to show three of them."""
    began = time.process_time()
    with pytest.raises(InvalidMessage) as caught:
        validate_json(data, PayloadType(kind))
    assert reason in str(caught.value)
    assert len(str(caught.value)) <= 300
    assert time.process_time() - began < 2


def test_large_right_data_is_what_small_data_is() -> None:
    """The validator for large data gives the same values."""
    data = b'{"items":[' + b'{"id":1,"tags":["a"]},' * 10_000 + b'{"id":2,"tags":[]}]}'
    kind = PayloadType(Batch)
    assert kind.validate_json(data) == kind.adapter.validate_json(data)
    assert len(kind.validate_json(data).items) == 10_001
