"""``convotic asyncapi``: Print the AsyncAPI document of the handlers."""

from __future__ import annotations

import json
from typing import TextIO

import click

from convotic_celery.cli.options import examples

__all__ = ["command"]


@click.command("asyncapi", epilog=examples("convotic asyncapi --html -o docs/messages.html"))
@click.option("--html", "as_html", is_flag=True, help="Print a self-contained HTML page.")
@click.option(
    "--output",
    "-o",
    type=click.File("w", encoding="utf-8", lazy=True),
    default="-",
    metavar="FILE",
    help="Write to FILE instead of standard output.",
)
def command(as_html: bool, output: TextIO) -> None:
    """Print the AsyncAPI 3 document of all handlers: topics, payloads, options."""
    from convotic_celery.documents.asyncapi import build_asyncapi
    from convotic_celery.documents.page import render_asyncapi
    from convotic_celery.modules import load_modules
    from convotic_celery.settings import Settings

    handlers = [handler for module in load_modules(Settings()) for handler in module.handlers]
    document = build_asyncapi(handlers)
    text = render_asyncapi(document) if as_html else json.dumps(document, indent=2) + "\n"
    output.write(text)
