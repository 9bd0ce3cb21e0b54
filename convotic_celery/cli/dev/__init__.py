"""``convotic dev``: Run everything in one terminal, and reload it on save.

What lives where: session.py says when what runs, part.py keeps one program running and replaces it,
nursery.py is the process that forks the others, process.py is one of those, output.py copies its
lines, watch.py sees what is saved, servers.py starts and ends the embedded servers, screen.py and
summary.py write. child.py and programs.py run in the children; control.py is how the two talk.
"""

from __future__ import annotations

from pathlib import Path

import click

from convotic_celery.cli.options import examples, host_option

__all__ = ["command"]


@click.command(
    "dev",
    epilog=examples(
        "convotic dev",
        "convotic dev --debug          # breakpoint() in a handler stops here",
        "convotic dev --watch ../lib",
    ),
)
@host_option("127.0.0.1")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of the routes; the next free one if it is taken.",
)
@click.option(
    "--dashboard-port",
    default=8100,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of the dashboard; the next free one if it is taken.",
)
@click.option(
    "--debug",
    is_flag=True,
    help="Stop at breakpoints: at breakpoint() in this terminal, or in VS Code if it is attached. "
    "No ack deadline applies.",
)
@click.option(
    "--debug-port",
    default=5678,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="Port for VS Code to attach to; needs `pip install debugpy`.",
)
@click.option(
    "--watch",
    "watched",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Watch the Python files of this folder too. Repeatable.",
)
def command(  # noqa: PLR0917 - click gives each option by name
    host: str,
    port: int,
    dashboard_port: int,
    debug: bool,
    debug_port: int,
    watched: tuple[Path, ...],
) -> int:
    """Run emulator, store, worker, dashboard, routes and beat for the modules here, until Ctrl-C.

    When a file is saved, new processes load it and take over once they are ready; the old ones
    finish their running handlers. While a file has an error, the old processes go on. Servers
    started by this command are stopped with it; their data stays in the data folder.
    """
    import asyncio
    import sys

    from convotic_celery.cli.dev.screen import Screen
    from convotic_celery.cli.dev.session import DevOptions, Session
    from convotic_celery.settings import Settings

    settings = Settings()
    settings.refuse_embedded_where_wrong()
    options = DevOptions(
        host=host,
        port=port,
        dashboard_port=dashboard_port,
        debug_port=debug_port if debug else None,
        watched=tuple(path.resolve() for path in watched),
    )
    return asyncio.run(Session(settings, options, Screen(sys.stdout)).run())
