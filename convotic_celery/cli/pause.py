"""``convotic pause``: Stop all workers from running a handler."""

from __future__ import annotations

import json

import click

from convotic_celery.cli.fleet import find_handler, notify_workers
from convotic_celery.cli.options import HANDLER, examples, json_option, open_app, timeout_option

__all__ = ["command"]


@click.command("pause", epilog=examples("convotic pause custom.orders.new.shop", "convotic pause"))
@click.argument("handler", type=HANDLER, required=False)
@timeout_option
@json_option
def command(handler: str | None, timeout: float, as_json: bool) -> int:
    """Stop all workers from pulling messages of HANDLER (its queue); without it, list the paused.

    Running messages are finished, waiting ones stay in Pub/Sub. It also applies to workers that
    start later, until `convotic resume`. Exit code 1 if no worker that consumes it answers.
    """
    with open_app() as app:
        if handler is None:
            paused = sorted(app.pauses.read())
            click.echo(json.dumps(paused) if as_json else "\n".join(paused) or "nothing is paused")
            return 0
        definition = find_handler(app.definitions, handler)
        # First: a worker that starts now gets no order, but reads this.
        app.pauses.add(definition.queue)
        return notify_workers(app, definition, "pause_handler", timeout=timeout, as_json=as_json)
