"""JSON Schemas of payloads: each named model once, below ``#/components/schemas``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

if TYPE_CHECKING:
    from pydantic_core import core_schema

__all__ = ["JsonSchema", "build_schema", "build_schemas"]

JsonSchema: TypeAlias = dict[str, Any]

_REFERENCES = "#/components/schemas/{model}"


class _TolerantGenerator(GenerateJsonSchema):
    """Writes "anything" for a type that has no JSON Schema, instead of failing for all others."""

    ignored_warning_kinds = {  # noqa: RUF012 - pydantic declares it so
        "skipped-choice",
        "non-serializable-default",
    }

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:
        """Sort the schema's words, but leave an author's examples in the author's order."""
        if not isinstance(value, dict) or "examples" not in value or parent_key == "properties":
            return super().sort(value, parent_key)
        return super().sort(value, parent_key) | {"examples": value["examples"]}

    def handle_invalid_for_json_schema(
        self, schema: core_schema.CoreSchema, error_info: str
    ) -> JsonSchemaValue:
        del schema, error_info
        return {}


def build_schemas(
    types: Mapping[str, Any],
) -> tuple[dict[str, JsonSchema], dict[str, JsonSchema]]:
    """Return a schema for each key, and the definitions that they refer to.

    None as a type stands for any JSON, and so does a type that pydantic knows nothing of.
    """
    adapters = {key: adapter for key, wanted in types.items() if (adapter := _adapter(wanted))}
    schemas, shared = TypeAdapter.json_schemas(
        [(key, "validation", adapter) for key, adapter in adapters.items()],
        ref_template=_REFERENCES,
        schema_generator=_TolerantGenerator,
    )
    found = {key: schemas.get((key, "validation"), {}) for key in types}
    return found, dict(shared.get("$defs", {}))


def build_schema(wanted: Any) -> JsonSchema:
    """Return one type's schema, complete in itself; ``{}`` for any JSON."""
    adapter = _adapter(wanted)
    return adapter.json_schema(schema_generator=_TolerantGenerator) if adapter else {}


def _adapter(wanted: Any) -> TypeAdapter[Any] | None:
    if wanted is None:
        return None
    try:
        adapter = TypeAdapter(wanted)
        len(adapter.core_schema)
    except PydanticUserError:
        return None
    return adapter
