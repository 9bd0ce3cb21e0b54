"""``convotic handlers``: List the handlers that a worker would run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from convotic_celery.cli.columns import align
from convotic_celery.cli.options import examples

if TYPE_CHECKING:
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = ["command"]


@click.command(
    "handlers", epilog=examples("convotic handlers", "convotic handlers --json | jq '.[].queue'")
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def command(as_json: bool) -> None:
    """List the handlers of all modules, with topic, queue and options."""
    from convotic_celery.modules import load_modules
    from convotic_celery.settings import Settings

    handlers = [handler for module in load_modules(Settings()) for handler in module.handlers]
    if as_json:
        from convotic_celery.documents.schemas import build_schema

        described = [describe(h, build_schema(h.payload_type)) for h in handlers]
        click.echo(json.dumps(described, indent=2))
        return
    if not handlers:
        click.echo(
            "No handlers. Put a module into ./modules or name one: CONVOTIC_MODULES=package.",
            err=True,
        )
        return
    rows = [
        (
            handler.topic,
            handler.queue,
            str(handler.options.max_retries),
            f"{handler.options.ack_deadline:g} s",
            str(handler.options.concurrency),
            handler.source,
        )
        for handler in handlers
    ]
    header = ("topic", "queue", "retries", "ack deadline", "concurrency", "defined at")
    click.echo(align(header, rows))


def describe(handler: HandlerDefinition, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a handler as plain JSON: its names, all its options, its payload's JSON Schema."""
    return {
        "topic": handler.topic,
        "queue": handler.queue,
        "subscription": handler.subscription,
        "dead_letter_topic": handler.dead_letter_topic,
        "module": handler.module,
        "module_version": handler.module_version,
        "source": handler.source,
        "payload_schema": schema,
        "options": handler.options.model_dump(mode="json"),
    }
