"""What an annotation names, as a validator of JSON: :class:`PayloadType`. Pure."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import SchemaError, SchemaValidator
from pydantic_core.core_schema import CoreConfig, no_info_after_validator_function

from convotic_celery.errors import InvalidMessage

__all__ = ["LARGE_BYTES", "PayloadType", "check_bounds"]

#: Data above this is checked against the bounds below, and decoded off the event loop.
LARGE_BYTES = 100_000
#: An empty list takes 56 bytes of memory for 3 of JSON, a string of one letter 50 for 4.
MAX_CONTAINERS = 1_000_000
MAX_VALUES = 5_000_000

#: Pydantic's collections, and where each has the schema of its items.
_ITEMS = {
    "list": "items_schema",
    "tuple": "items_schema",
    "set": "items_schema",
    "frozenset": "items_schema",
    "dict": "values_schema",
}
#: Items of these are too small to stop for.
_SCALARS = frozenset({"str", "int", "float", "bool", "none", "literal", "enum", "decimal"})
#: Errors name them without their parts.
_NAMED = frozenset({"model", "dataclass", "typed-dict"})
#: Parts of a schema that are values, not schemas.
_VALUES = frozenset({"default", "expected", "members", "metadata", "config", "serialization"})


def check_bounds(raw: bytes) -> None:
    """Refuse JSON that would fill the memory, as hardly any uncompressed message does.

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
    """A type that pydantic can read from JSON. Thread-safe."""

    def __init__(self, kind: Any) -> None:
        self.adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def validate_json(self, raw: bytes) -> Any:
        """Return the value; raises pydantic's ValidationError.

        In large data, each collection reports only its first wrong item: describing all of them,
        with 850 bytes each, could take seconds and gigabytes. Other threads run between items.
        """
        if len(raw) <= LARGE_BYTES:
            return self.adapter.validate_json(raw)
        return self._for_large.validate_json(raw)

    @cached_property
    def _for_large(self) -> SchemaValidator | TypeAdapter[Any]:
        schema = _adapt(self.adapter.core_schema)
        # The name that errors show would have the added functions in it.
        config = CoreConfig(title=getattr(self.adapter.validator, "title", ""))
        try:
            # Prebuilt validators of models would stand for what is changed here.
            return SchemaValidator(schema, config, _use_prebuilt=False)
        except (SchemaError, TypeError):  # a pydantic that does not know one of these options
            return self.adapter


def _adapt(schema: Any, *, pausing: bool = True) -> Any:
    """Return a core schema for large data.

    Its collections stop at their first wrong item, and with ``pausing`` other threads run between
    items that are collections or models themselves.
    """
    if isinstance(schema, list | tuple):
        return type(schema)([_adapt(each, pausing=pausing) for each in schema])
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    if not isinstance(kind, str):  # fields or choices by name, one of which may be called "type"
        return {name: _adapt(each, pausing=pausing) for name, each in schema.items()}
    if kind in _NAMED:
        pausing = True
    elif kind == "union":
        pausing = False  # errors name its choices by all that is in them
    changed = {
        key: value if key in _VALUES else _adapt(value, pausing=pausing)
        for key, value in schema.items()
    }
    if kind in _ITEMS:
        changed["fail_fast"] = True
        if pausing and _ITEMS[kind] in changed:
            changed[_ITEMS[kind]] = _pause_after(changed[_ITEMS[kind]])
    return changed


def _pause_after(schema: Any) -> Any:
    if isinstance(schema, list):  # of a tuple
        return [_pause_after(each) for each in schema]
    if schema["type"] in _SCALARS:
        return schema
    return no_info_after_validator_function(_let_others_run, schema)


def _let_others_run(value: Any) -> Any:
    """Return the value. Where a Python function begins, the interpreter hands over its GIL.

    Pydantic keeps it from the first byte of a message to the last: 1.4 to 2.3 s for 900,000 models.
    """
    return value
