"""One large message costs a bounded amount of time and memory, whatever is in it."""

from __future__ import annotations

import gzip
import threading
import time
import tracemalloc
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from convotic_celery.errors import InvalidMessage
from convotic_celery.sdk.compression import decompress
from convotic_celery.sdk.message import decode_json, validate_json
from convotic_celery.sdk.payload_type import PayloadType
from tests.support.memory import peak_memory
from tests.support.waiting import wait_until

_GZIP = {"content-encoding": "gzip"}


class Item(BaseModel):
    """Part of a payload."""

    id: int
    tags: list[str]


class Batch(BaseModel):
    """A payload with collections in collections."""

    items: list[Item]


class Typed(BaseModel):
    """A payload whose field is named as pydantic names a part of its schemas."""

    type: list[int]


class Defaults(BaseModel):
    """A payload whose default looks like a part of a schema."""

    batches: dict[str, tuple[Item, ...]] = {}
    default: dict[str, str] = Field(default={"type": "list"})


def test_gzip_of_many_empty_members_is_refused() -> None:
    """It took 52 s to find the one that is not empty."""
    raw = gzip.compress(b"") * 495_000 + gzip.compress(b'{"id":1}')
    began = time.thread_time()
    with pytest.raises(InvalidMessage, match="10,000 members"):
        decompress(raw, _GZIP)
    assert time.thread_time() - began < 10


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
        (
            Typed,
            b'{"type":[' + b'"x",' * 1_000_000 + b"1]}",
            "type.0: Input should be a valid integer",
        ),
    ],
    ids=["list", "dict", "model", "field named type"],
)
def test_large_wrong_data_is_described_by_its_first_problem(
    kind: Any, data: bytes, reason: str
) -> None:
    """Describing 4.9 million problems took 14 s and 4.3 GB, to show three of them."""
    with peak_memory() as peak, pytest.raises(InvalidMessage) as caught:
        validate_json(data, PayloadType(kind))
    assert reason in str(caught.value)
    assert len(str(caught.value)) <= 300
    assert peak.size < 100_000_000


@pytest.mark.parametrize(
    ("kind", "data", "wrong"),
    [
        (Batch, b'{"items":[{"id":1,"tags":["a"]}]}', b'{"items":[{"id":1,"tags":[2]}]}'),
        (list[Item], b'[{"id":1,"tags":[]}]', b'[{"id":"x","tags":[]}]'),
        (list[Item] | list[Batch], b'[{"items":[]}]', b'[{"items":[{}]}]'),
        (Defaults, b'{"batches":{"a":[{"id":1,"tags":[]}]}}', b'{"batches":{"a":[{"id":1}]}}'),
        (tuple[int, Batch], b'[1,{"items":[]}]', b'[1,{"items":1}]'),
    ],
    ids=["model", "list", "union", "defaults", "tuple"],
)
def test_large_data_is_what_small_data_is(kind: Any, data: bytes, wrong: bytes) -> None:
    """The validator for large data gives the same values, and describes what is wrong alike."""
    payload, padding = PayloadType(kind), b" " * 200_000
    assert payload.validate_json(data + padding) == payload.validate_json(data)
    texts = []
    for each in (wrong, wrong + padding):
        with pytest.raises(ValidationError) as caught:
            payload.validate_json(each)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


def test_other_threads_run_while_large_data_is_validated() -> None:
    """Pydantic kept the GIL for 2 s, in which the event loop and all renewals stood still."""
    payload = PayloadType(Batch)
    data = b'{"items":[' + b'{"id":1,"tags":["a"]},' * 100_000 + b'{"id":2,"tags":[]}]}'
    end, turns = threading.Event(), 0

    def take_turns() -> None:
        nonlocal turns
        while not end.wait(0.001):
            turns += 1

    def turns_meanwhile() -> int:
        before = turns
        assert len(payload.validate_json(data).items) == 100_001
        return turns - before

    thread = threading.Thread(target=take_turns)
    thread.start()
    try:
        # On a busy machine others may have the processor meanwhile: then it is tried again.
        wait_until(lambda: turns_meanwhile() >= 5)
    finally:
        end.set()
        thread.join()
