"""May a schema replace another? Avro's rules of schema resolution, on schemas parsed by fastavro.

https://avro.apache.org/docs/1.11.1/specification/#schema-resolution; fastavro applies them to data
only, this says whether they hold for all data.
"""

from __future__ import annotations

from typing import Any

__all__ = ["can_read"]

_PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}
_NAMED = ("record", "error", "enum", "fixed")


def can_read(reader: Any, writer: Any) -> bool:
    """Return whether whatever was written with one parsed schema can be read with the other."""
    return _Resolution(reader, writer).matches(reader, writer)


class _Resolution:
    """A comparison of two schemas; a pair of types that is being compared counts as matching."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self._reader_types: dict[str, Any] = {}
        self._writer_types: dict[str, Any] = {}
        _collect(reader, self._reader_types)
        _collect(writer, self._writer_types)
        self._compared: set[tuple[str, str]] = set()

    def matches(self, reader: Any, writer: Any) -> bool:
        reader = self._reader_types.get(reader, reader) if isinstance(reader, str) else reader
        writer = self._writer_types.get(writer, writer) if isinstance(writer, str) else writer
        if isinstance(writer, list):
            return all(self.matches(reader, branch) for branch in writer)
        if isinstance(reader, list):
            return any(self.matches(branch, writer) for branch in reader)
        reads, written = _kind(reader), _kind(writer)
        if reads != written:
            return reads in _PROMOTIONS.get(written, ())
        if reads in _NAMED:
            return self._named_match(reader, writer)
        if reads == "array":
            return self.matches(reader["items"], writer["items"])
        return reads != "map" or self.matches(reader["values"], writer["values"])

    def _named_match(self, reader: Any, writer: Any) -> bool:
        pair = reader["name"], writer["name"]
        if pair in self._compared:
            return True
        names = {_short(name) for name in (reader["name"], *reader.get("aliases", ()))}
        if _short(writer["name"]) not in names:
            return False
        self._compared.add(pair)
        if reader["type"] == "fixed":
            return bool(reader["size"] == writer["size"])
        if reader["type"] == "enum":
            return "default" in reader or set(writer["symbols"]) <= set(reader["symbols"])
        return self._fields_match(reader, writer)

    def _fields_match(self, reader: Any, writer: Any) -> bool:
        written = {field["name"]: field["type"] for field in writer["fields"]}
        for field in reader["fields"]:
            names = [n for n in (field["name"], *field.get("aliases", ())) if n in written]
            if names and not self.matches(field["type"], written[names[0]]):
                return False
            if not names and "default" not in field:
                return False
        return True


def _kind(schema: Any) -> str:
    return str(schema["type"] if isinstance(schema, dict) else schema)


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _collect(schema: Any, types: dict[str, Any]) -> None:
    """Find all named types of a schema."""
    if isinstance(schema, list):
        for branch in schema:
            _collect(branch, types)
    elif isinstance(schema, dict):
        if schema["type"] in _NAMED:
            types[schema["name"]] = schema
        for part in ("items", "values", "type"):
            _collect(schema.get(part), types)
        for field in schema.get("fields", ()):
            _collect(field["type"], types)
