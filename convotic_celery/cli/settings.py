"""``convotic settings``: Show the settings in effect, with units and what they mean."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click

from convotic_celery.cli.columns import align
from convotic_celery.cli.options import examples, json_option

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = ["command", "unit_of"]

_UNIT = re.compile(r"\b(seconds|bytes)\b", re.IGNORECASE)


@click.command(
    "settings",
    epilog=examples(
        "convotic settings", "convotic settings timeout", "convotic settings --changed --json"
    ),
)
@click.argument("pattern", required=False)
@click.option("--changed", is_flag=True, help="Show only those that the environment sets.")
@click.option("--brief", is_flag=True, help="Leave out the descriptions.")
@json_option
def command(pattern: str | None, changed: bool, brief: bool, as_json: bool) -> None:
    """Show the settings in effect, or those whose name contains PATTERN; secrets are hidden.

    Each is either the value of its environment variable or the default.
    """
    from convotic_celery.settings import Settings

    settings = Settings()
    fields = type(settings).model_fields
    values = {
        name: value
        for name, value in settings.model_dump(mode="json").items()  # a SecretStr becomes asterisks
        if (not changed or name in settings.model_fields_set)
        and (pattern is None or pattern.lower() in _variable_of(name, fields[name]).lower())
    }
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    if not values:
        click.echo(_explain_none(pattern, changed=changed), err=True)
        return
    rows = [
        (
            _variable_of(name, fields[name]),
            _show(value, unit_of(fields[name])),
            "environment" if name in settings.model_fields_set else "default",
        )
        for name, value in values.items()
    ]
    first, *lines = align(("setting", "value", "from"), rows).splitlines()
    click.echo(first)
    for line, name in zip(lines, values, strict=True):
        click.echo(line if brief else f"{line}\n    {fields[name].description}")


def _explain_none(pattern: str | None, *, changed: bool) -> str:
    named = f"whose name contains {pattern!r}" if pattern else ""
    if changed:
        return f"The environment sets none {named}".strip() + "."
    return f"There is no setting {named}; `convotic settings --brief` lists all."


def unit_of(field: FieldInfo) -> str:
    """Return the unit of a number, as its description has it; "" for a count or another type."""
    numbers = (int, float, int | None, float | None)
    found = _UNIT.search(field.description or "") if field.annotation in numbers else None
    return found[1].lower() if found else ""


def _variable_of(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    return alias if isinstance(alias, str) else f"CONVOTIC_{name.upper()}"


def _show(value: Any, unit: str) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text} {unit}" if unit else text
