"""Avro's rules of schema resolution."""

from __future__ import annotations

import json
from typing import Any

import pytest

from convotic_emulator.services.avro import parse_definition
from convotic_emulator.services.avro_compatibility import can_read


def record(*fields: Any, **more: Any) -> Any:
    return {"type": "record", "name": "ns.R", "fields": list(fields), **more}


def field(kind: Any, **more: Any) -> Any:
    return {"name": "a", "type": kind, **more}


def enum(*symbols: str, **more: Any) -> Any:
    return {"type": "enum", "name": "E", "symbols": list(symbols), **more}


def fixed(size: int, name: str = "F") -> Any:
    return {"type": "fixed", "name": name, "size": size}


TREE = record(field("int"), {"name": "next", "type": ["null", "ns.R"]})
LONG_TREE = record(field("long"), {"name": "next", "type": ["null", "ns.R"]})


@pytest.mark.parametrize(
    ("reader", "writer", "expected"),
    [
        ("string", "string", True),
        ("long", "int", True),
        ("int", "long", False),
        ("double", "float", True),
        ("bytes", "string", True),
        ("boolean", "string", False),
        (["null", "string"], "string", True),
        ("string", ["null", "string"], False),
        ("long", ["int", "long"], True),
        ({"type": "array", "items": "long"}, {"type": "array", "items": "int"}, True),
        ({"type": "array", "items": "int"}, {"type": "array", "items": "long"}, False),
        ({"type": "map", "values": "long"}, {"type": "map", "values": "int"}, True),
        ({"type": "map", "values": "int"}, {"type": "map", "values": "string"}, False),
        (enum("X", "Y"), enum("X"), True),
        (enum("X"), enum("X", "Y"), False),
        (enum("X", default="X"), enum("X", "Y"), True),
        (fixed(4), fixed(4), True),
        (fixed(4), fixed(8), False),
        (fixed(4), fixed(4, name="G"), False),
        (record(field("int")), record(), False),
        (record(field("int", default=1)), record(), True),
        (record(), record(field("int")), True),
        (record(field("long")), record(field("int")), True),
        (record(field("int")), record(field("string")), False),
        (
            record({"name": "b", "type": "int", "aliases": ["a"]}),
            record(field("int")),
            True,
        ),
        (record(), record(name="ns.Q"), False),
        (record(aliases=["ns.Q"]), record(name="ns.Q"), True),
        (LONG_TREE, TREE, True),
        (TREE, LONG_TREE, False),
    ],
)
def test_resolution(reader: Any, writer: Any, expected: bool) -> None:  # a table
    """What can be read with what."""
    parsed = [parse_definition(json.dumps(schema)) for schema in (reader, writer)]

    assert can_read(*parsed) is expected
