"""What a person sees while the demo runs, and the table at its end."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from convotic_celery.cli.demo.figures import Figures

__all__ = ["Screen", "print_figures"]


class Screen(AbstractContextManager["Screen"]):
    """Progress bars and remarks on standard error; bars only on a terminal."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        """Prepare for ``total`` orders; ``quiet`` shows no bars and no remarks, only errors."""
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._published = self._progress.add_task("published", total=total)
        self._processed = self._progress.add_task("processed", total=total)

    def __enter__(self) -> Self:
        """Show the bars."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def remark(self, text: str) -> None:
        """Write one line above the bars."""
        self._progress.console.print(text)

    def update(self, *, published: int, processed: int) -> None:
        """Move the bars."""
        self._progress.update(self._published, completed=published)
        self._progress.update(self._processed, completed=processed)


def print_figures(figures: Figures, *, as_json: bool) -> None:
    """Print the result on standard output."""
    if as_json:
        click.echo(json.dumps(figures.to_json()))
        return
    table = Table("figure", "read from", "value", title="Real orders through a real worker")
    table.columns[2].justify = "right"
    rows = [
        ("published", "confirmed by the server", f"{figures.published:,}"),
        ("processed", "store", f"{figures.processed:,}"),
        ("contacts", "store", f"{figures.contacts:,}"),
        ("units", "store", f"{figures.units:,}"),
        ("total", "store", f"{figures.total:,.2f}"),
        ("dead-lettered", "dead-letter subscription", f"{figures.dead_lettered:,}"),
        ("seconds", "clock", f"{figures.seconds:.1f}"),
        ("messages per second", "clock", f"{figures.messages_per_second:,.0f}"),
    ]
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)
