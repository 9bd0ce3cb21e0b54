"""An example of what a JSON Schema describes, to begin with when one publishes by hand. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["build_example"]

#: What a model would be that contains itself without end: left out, or null.
_ENDLESS: Any = object()
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT5M",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "uuid": "0199d1a5-7c1e-7000-8000-000000000001",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "ipvanyaddress": "192.0.2.1",
    "binary": "",
    "json-string": "{}",
}


def build_example(schema: Mapping[str, Any]) -> Any:
    """Return a value that fits the schema as far as can be known; ``{}`` for any JSON.

    The author's own ``examples`` and defaults come first. A pattern is not obeyed.
    """
    found = _build(schema, schema.get("$defs") or {}, frozenset())
    return None if found is _ENDLESS else found


def _build(schema: Mapping[str, Any], models: Mapping[str, Any], within: frozenset[str]) -> Any:
    given = _find_given(schema)
    if given:
        return given[0]
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        endless = name in within
        return _ENDLESS if endless else _build(models.get(name, {}), models, within | {name})
    choices = next((schema[w] for w in ("anyOf", "oneOf", "allOf") if schema.get(w)), ())
    if choices:
        return _choose(choices, models, within)
    return _build_typed(schema, models, within)


def _build_typed(
    schema: Mapping[str, Any], models: Mapping[str, Any], within: frozenset[str]
) -> Any:
    kind = schema.get("type", "object")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            return _build_object(schema, models, within)
        case "array":
            return _build_array(schema, models, within)
        case "string":
            return _build_string(schema)
        case "integer" | "number" as name:
            return _build_number(schema, whole=name == "integer")
        case name:
            return True if name == "boolean" else None


def _choose(
    choices: Sequence[Mapping[str, Any]], models: Mapping[str, Any], within: frozenset[str]
) -> Any:
    """Return a value of the first choice that has one; null is the last."""
    for choice in sorted(choices, key=lambda each: each.get("type") == "null"):
        found = _build(choice, models, within)
        if found is not _ENDLESS:
            return found
    return _ENDLESS


def _find_given(schema: Mapping[str, Any]) -> Sequence[Any]:
    """Return what the schema itself names as a value, in a list of one."""
    examples = schema.get("examples")
    if isinstance(examples, list | tuple) and examples:
        return [examples[0]]
    for word in ("example", "const", "default"):
        if word in schema:
            return [schema[word]]
    return list(schema["enum"][:1]) if schema.get("enum") else []


def _build_object(
    schema: Mapping[str, Any], models: Mapping[str, Any], within: frozenset[str]
) -> Any:
    required = set(schema.get("required", ()))
    found = {
        name: _build(each, models, within)
        for name, each in (schema.get("properties") or {}).items()
    }
    if any(value is _ENDLESS for name, value in found.items() if name in required):
        return _ENDLESS
    return {name: value for name, value in found.items() if value is not _ENDLESS}


def _build_array(
    schema: Mapping[str, Any], models: Mapping[str, Any], within: frozenset[str]
) -> Any:
    if "prefixItems" in schema:
        return [_build(each, models, within) for each in schema["prefixItems"]]
    least = int(schema.get("minItems", 0))
    item = _build(schema["items"], models, within) if schema.get("items") else _ENDLESS
    if item is _ENDLESS:
        return _ENDLESS if least else []
    return [item] * max(1, least)


def _build_string(schema: Mapping[str, Any]) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    text = "text"
    return text.ljust(int(schema.get("minLength", 0)), "x")[: int(schema.get("maxLength", 80))]


def _build_number(schema: Mapping[str, Any], *, whole: bool) -> float:
    step = schema.get("multipleOf") or 1
    if "minimum" in schema:
        value = schema["minimum"]
    elif "exclusiveMinimum" in schema:
        value = schema["exclusiveMinimum"] + step
    else:
        value = min(step, schema.get("maximum", step), schema.get("exclusiveMaximum", 2) - 1)
    return int(value) if whole or float(value).is_integer() else float(value)
