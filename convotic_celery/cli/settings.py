"""``convotic settings``: Show the settings in effect."""

from __future__ import annotations

import json
from typing import Any

import click

from convotic_celery.cli.columns import align

__all__ = ["command"]


@click.command("settings")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Show the settings in effect; secrets are hidden.

    A setting comes from its environment variable or is the default.
    """
    from convotic_celery.settings import Settings

    settings = Settings()
    values = settings.model_dump(mode="json")  # a SecretStr becomes asterisks
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    fields = type(settings).model_fields
    rows = [
        (
            _variable_of(name, fields[name].validation_alias),
            _show(value),
            "environment" if name in settings.model_fields_set else "default",
        )
        for name, value in values.items()
    ]
    click.echo(align(("setting", "value", "from"), rows))


def _variable_of(name: str, alias: object) -> str:
    return alias if isinstance(alias, str) else f"CONVOTIC_{name.upper()}"


def _show(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "-" if value is None else json.dumps(value)
