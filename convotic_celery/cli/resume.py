"""``convotic resume``: Let workers run a paused handler again."""

from __future__ import annotations

import click

from convotic_celery.cli.fleet import find_handler, notify_workers
from convotic_celery.cli.options import HANDLER, examples, json_option, open_app, timeout_option

__all__ = ["command"]


@click.command("resume", epilog=examples("convotic resume custom.orders.new.shop"))
@click.argument("handler", type=HANDLER)
@timeout_option
@json_option
def command(handler: str, timeout: float, as_json: bool) -> int:
    """Let all workers pull messages of HANDLER (its queue) again, the oldest first.

    Exit code 1 if no worker that consumes it answers.
    """
    with open_app() as app:
        definition = find_handler(app.definitions, handler)
        app.pauses.remove(definition.queue)
        return notify_workers(app, definition, "resume_handler", timeout=timeout, as_json=as_json)
