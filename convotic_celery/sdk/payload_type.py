"""What an annotation names, as a validator of JSON: :class:`PayloadType`. Pure."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import SchemaError, SchemaValidator

from convotic_celery.errors import InvalidMessage

__all__ = ["LARGE_BYTES", "PayloadType", "check_bounds"]

#: Data above this is checked against the bounds below, and decoded off the event loop.
LARGE_BYTES = 100_000
#: An empty list takes 56 bytes of memory for 3 of JSON, a string of one letter 50 for 4.
MAX_CONTAINERS = 1_000_000
MAX_VALUES = 5_000_000

#: Pydantic's collections that can stop at their first wrong item.
_COLLECTIONS = frozenset({"list", "tuple", "set", "frozenset", "dict"})


def check_bounds(raw: bytes) -> None:
    """Refuse JSON that would take up the memory; what Pub/Sub carries uncompressed has few such.

    Raises:
        InvalidMessage: It has over a million objects and arrays, or five million values.
    """
    if len(raw) <= LARGE_BYTES:
        return
    if raw.count(b"[") + raw.count(b"{") > MAX_CONTAINERS:
        raise InvalidMessage(f"data has more than {MAX_CONTAINERS:,} objects and arrays")
    if raw.count(b",") > MAX_VALUES:
        raise InvalidMessage(f"data has more than {MAX_VALUES:,} values")


class PayloadType:
    """A type that pydantic can make of JSON. Thread-safe once made."""

    def __init__(self, kind: Any) -> None:
        self.adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def validate_json(self, raw: bytes) -> Any:
        """Return the value; raises pydantic's ValidationError.

        Of large data, each collection reports its first wrong item only. All of them would take
        seconds and gigabytes to describe: 850 bytes each.
        """
        if len(raw) <= LARGE_BYTES:
            return self.adapter.validate_json(raw)
        return self._stopping_early.validate_json(raw)

    @cached_property
    def _stopping_early(self) -> SchemaValidator | TypeAdapter[Any]:
        try:
            # Prebuilt validators of models would stand for what is changed here.
            return SchemaValidator(_fail_fast(self.adapter.core_schema), _use_prebuilt=False)
        except (SchemaError, TypeError):  # a pydantic that does not know one of these options
            return self.adapter


def _fail_fast(schema: Any) -> Any:
    """Return a core schema whose collections stop at their first wrong item."""
    if isinstance(schema, dict):
        changed = {key: _fail_fast(value) for key, value in schema.items()}
        if schema.get("type") in _COLLECTIONS:
            changed["fail_fast"] = True
        return changed
    if isinstance(schema, list | tuple):
        return type(schema)(map(_fail_fast, schema))
    return schema
