"""``convotic check``: Load everything, and list what is wrong."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from convotic_celery.cli.options import examples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convotic_celery.cli.faults import Fault
    from convotic_celery.errors import ConvoticError
    from convotic_celery.modules import LoadedModule

__all__ = ["command"]


@click.command(
    "check",
    epilog=examples("convotic check", "convotic check --json | jq .faults"),
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> int:
    """Load settings, modules, routes and schedules, as worker, routes and beat would.

    Starts and contacts nothing. Exit code 0 if everything loads; otherwise 1, and for each fault
    where it is, what it is, and what to do.
    """
    warnings = _Warnings()
    loaded, faults = _check(warnings)
    counts = {
        "modules": len(loaded),
        "handlers": sum(len(module.handlers) for module in loaded),
        "routes": sum(len(module.routes) for module in loaded),
        "schedules": sum(len(module.schedules) for module in loaded),
    }
    if as_json:
        shown = [asdict(fault) for fault in faults]
        click.echo(json.dumps({"faults": shown, "warnings": warnings.texts, **counts}, indent=2))
    else:
        for text in warnings.texts:
            click.secho(f"warning: {text}", fg="yellow", err=True)
        for fault in faults:
            click.secho(fault.text, fg="red", err=True)
        found = ", ".join(
            f"{count} {name if count != 1 else name[:-1]}" for name, count in counts.items()
        )
        noun = "fault" if len(faults) == 1 else "faults"
        begin = f"{len(faults)} {noun}; what loads" if faults else "Everything loads"
        click.echo(f"{begin}: {found}.")
    return 1 if faults else 0


def _check(warnings: _Warnings) -> tuple[Sequence[LoadedModule], list[Fault]]:
    from convotic_celery.cli.faults import describe_fault
    from convotic_celery.discovery import tolerating
    from convotic_celery.modules import load_modules
    from convotic_celery.settings import Settings

    faults: list[Fault] = []

    def note(error: ConvoticError) -> None:
        faults.append(describe_fault(error))

    loaded: list[LoadedModule] = []
    with warnings, tolerating(note):
        settings = Settings()
        with tolerating(note):
            settings.refuse_embedded_where_wrong()
        loaded = load_modules(settings, on_fault=note)
        if not faults:
            _check_app(settings)
    return loaded, faults


def _check_app(settings: object) -> None:
    """Put together what the modules are part of; raises ConvoticError."""
    from convotic_celery.app import create_app
    from convotic_celery.routes.application import build_openapi
    from convotic_celery.settings import Settings

    assert isinstance(settings, Settings)
    app = create_app(settings, set_as_current=False)
    if app.routes:
        build_openapi(app.routes)


class _Warnings(logging.Handler):
    """Collects what is logged while modules are loaded; as a context manager, from the framework.

    Once each: modules are loaded twice.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self._logger = logging.getLogger("convotic_celery")

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text."""
        if (text := record.getMessage()) not in self.texts:
            self.texts.append(text)

    def __enter__(self) -> None:
        """Begin to collect."""
        self._logger.addHandler(self)

    def __exit__(self, *_: object) -> None:
        """Stop collecting."""
        self._logger.removeHandler(self)
