"""The ``convotic`` command. One file a command; what a command needs is imported when it runs.

A new command is a new file, whose docstring begins with its name and what it does: group.py.
Commands share ``options``, ``columns`` (tables), ``fleet`` (asking workers), ``line_batches``
(JSON lines) and ``supervisor`` (processes).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from convotic_celery.cli.columns import plain
from convotic_celery.cli.group import LazyGroup

__all__ = ["cli", "main"]

#: Exit code for errors of the command line or the settings; others are 1.
EXIT_USAGE = 2
EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130


@click.group(
    cls=LazyGroup,
    package=__name__,
    folder=Path(__file__).parent,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="convotic-celery", message="%(package)s %(version)s")
def cli() -> None:
    """Run Celery workers on Google Cloud Pub/Sub.

    Start a worker with: celery -A convotic_celery worker
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    An expected error prints one line: 2 for a wrong command line or setting, else 1.
    """
    try:
        outcome = cli.main(arguments, prog_name="convotic", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return EXIT_INTERRUPTED
    except Exception as error:
        exit_code = _exit_code_of(error)
        if exit_code is None:
            raise
        click.echo(f"convotic: {plain(_describe(error))}", err=True)
        return exit_code
    return outcome if isinstance(outcome, int) else 0


def _describe(error: Exception) -> str:
    if not isinstance(error, PermissionError) or error.filename is None:
        return str(error)
    return (
        f"{error.filename} can't be used: {error.strerror}. If it belongs to another user's data "
        "folder, set CONVOTIC_DATA_DIR to one of your own."
    )


def _exit_code_of(error: Exception) -> int | None:
    """Return the exit code of an error that is meant for a person, or None for a bug."""
    from convotic_celery.errors import ConfigurationError, ConvoticError, ModuleError

    if isinstance(error, ConfigurationError | ModuleError):
        return EXIT_USAGE
    if isinstance(error, ConvoticError | PermissionError):  # another user's folder
        return EXIT_FAILURE
    # Only a command that has used the transport can have raised its errors: don't import it here.
    for package, name in (
        ("convotic_pubsub.errors", "PubsubTransportError"),
        ("convotic_emulator.errors", "StoreError"),
        ("kombu.exceptions", "OperationalError"),  # what kombu makes of the transport's
    ):
        expected = getattr(sys.modules.get(package), name, None)
        if expected is not None and isinstance(error, expected):
            return EXIT_FAILURE
    return None
