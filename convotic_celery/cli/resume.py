"""``convotic resume``: Have a paused handler run again."""

from __future__ import annotations

import click

from convotic_celery.cli.fleet import find_handler, tell_workers
from convotic_celery.cli.options import HANDLER, examples

__all__ = ["command"]


@click.command("resume", epilog=examples("convotic resume custom.orders.new.shop"))
@click.argument("handler", type=HANDLER)
@click.option(
    "--timeout",
    default=2.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="Seconds to wait for the workers' answers.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(handler: str, timeout: float, as_json: bool) -> int:
    """Have all workers pull messages of HANDLER (its queue) again; what has waited comes first.

    Exit code 1 if no worker that consumes it answers.
    """
    from convotic_celery.app import create_app
    from convotic_celery.settings import Settings

    app = create_app(Settings())
    try:
        definition = find_handler(app.definitions, handler)
        app.pauses.remove(definition.queue)
        return tell_workers(app, definition, "resume_handler", timeout=timeout, as_json=as_json)
    finally:
        app.close()
