"""``convotic worker``: Run workers and keep them running."""

from __future__ import annotations

from argparse import ArgumentParser
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from convotic_celery.cli.options import examples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["command", "worker_commands"]


# No short options: Celery's may be written together with their values, as in -Qname.
@click.command(
    "worker",
    epilog=examples(
        "convotic worker --processes $(nproc)",
        "convotic worker --processes 4 -Q custom.orders.new.shop",
    ),
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
)
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Workers to run; one uses about one core. For all cores: --processes $(nproc).",
)
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def command(processes: int, celery_options: tuple[str, ...]) -> int:
    """Run workers until SIGTERM or Ctrl-C, and restart those that die.

    CELERY_OPTIONS are passed to each `celery -A convotic_celery worker` unchanged, for example
    `convotic worker --processes 4 --loglevel INFO -Q custom.orders.new.shop`. So are signals: on
    SIGTERM and Ctrl-C, running handlers finish. A worker ended by `celery control shutdown` is not
    restarted. CONVOTIC_HEALTH_PORT answers for all of them.
    """
    import asyncio

    from convotic_celery.cli.supervisor import Supervisor

    commands = worker_commands(processes, celery_options)
    with answer_health(commands) as commands:
        return asyncio.run(Supervisor(commands).run())


@contextmanager
def answer_health(commands: list[list[str]]) -> Iterator[list[list[str]]]:
    """Answer for these workers on ``CONVOTIC_HEALTH_PORT``, if that is set, while the block runs.

    Yields the commands to run: each of their workers answers on a Unix socket.

    Raises:
        ConfigurationError: A setting is wrong, or the port can't be opened.
    """
    import tempfile
    from pathlib import Path

    from convotic_celery.settings import Settings

    settings = Settings()
    if settings.health_port is None:
        yield commands
        return
    from convotic_celery.telemetry.fleet import FleetSource
    from convotic_celery.telemetry.server import serve

    with tempfile.TemporaryDirectory(prefix="convotic-health-") as folder:
        sockets = [Path(folder) / f"{number}.sock" for number in range(len(commands))]
        server = serve(FleetSource(sockets), settings)
        try:
            yield [
                ["/usr/bin/env", f"CONVOTIC_HEALTH_SOCKET={path}", *command]
                for path, command in zip(sockets, commands, strict=True)
            ]
        finally:
            server.stop()


def worker_commands(processes: int, celery_options: Sequence[str]) -> list[list[str]]:
    """Return the workers' command lines, which differ in the node name.

    That is ``celery@%h``, or what ``-n`` says; with several processes a number follows its first
    part: ``celery1@%h``, ``celery2@%h``.
    """
    import sys

    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-n", "--hostname", default="celery@%h")
    found, others = parser.parse_known_args(celery_options)
    name, at, host = found.hostname.partition("@")
    numbers = range(1, processes + 1) if processes > 1 else [""]
    celery = [sys.executable, "-m", "celery", "-A", "convotic_celery", "worker"]
    return [[*celery, "-n", f"{name}{number}{at}{host}", *others] for number in numbers]
