"""Avro: are a definition and a message's data valid? By fastavro, the extra ``avro``."""

from __future__ import annotations

import io
import json
from typing import Any

from convotic_emulator.errors import InvalidArgument, Unimplemented

__all__ = ["is_valid_message", "parse_definition"]

#: What fastavro raises for data that does not fit; it has no base class for that.
_MISFITS = (
    *(ValueError, TypeError, KeyError, IndexError, EOFError, AttributeError, OverflowError),
    RecursionError,  # nested deeper than Python follows
)


def parse_definition(definition: str) -> Any:
    """Return a parsed Avro schema; InvalidArgument if it is none."""
    fastavro = _fastavro()
    try:
        return fastavro.parse_schema(json.loads(definition))
    except (*_MISFITS, fastavro.schema.SchemaParseException) as error:
        reason = f"{type(error).__name__} {error}"
        raise InvalidArgument(f"Invalid schema definition: {reason}.") from None


def is_valid_message(schema: Any, data: bytes, *, binary: bool) -> bool:
    """Return whether data is one Avro datum, in binary or JSON encoding, with nothing after it."""
    fastavro = _fastavro()
    stream = io.BytesIO(data)
    try:
        if binary:
            fastavro.schemaless_reader(stream, schema, None)
            return not stream.read(1)
        datums = list(fastavro.json_reader(io.StringIO(data.decode()), schema))
        return len(datums) == 1 and bool(
            fastavro.validate(datums[0], schema, raise_errors=False, strict=True)
        )
    except _MISFITS:
        return False


def _fastavro() -> Any:
    try:
        import fastavro  # noqa: PLC0415  # an extra
        import fastavro.schema  # noqa: PLC0415
    except ImportError:
        raise Unimplemented(
            "Avro schemas need fastavro: pip install 'convotic-celery[avro]'."
        ) from None
    return fastavro
