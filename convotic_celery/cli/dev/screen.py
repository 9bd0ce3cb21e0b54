"""What ``convotic dev`` writes: one line after the other, each with its source in front."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Screen"]

_COLOURS = {"dev": "cyan", "worker": "green", "routes": "magenta", "beat": "yellow"}
_WIDTH = 9
#: What stands before each line: the source, and a bar.
_MARGIN = _WIDTH + 3


class Screen:
    """Writes lines; coloured on a terminal, unless NO_COLOR is set. One writer: not thread-safe."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.is_terminal = out.isatty()
        # NO_COLOR is the terminal's convention and no setting of ours: https://no-color.org
        self._coloured = self.is_terminal and not os.environ.get("NO_COLOR")

    @property
    def room(self) -> int:
        """How many characters of a child's line fit."""
        return max(40, shutil.get_terminal_size().columns - _MARGIN)

    def say(self, text: str, *, colour: str | None = None, source: str = "dev") -> None:
        """Write a text of our own, which may have several lines."""
        self.write(source, (click.style(line, fg=colour) for line in text.splitlines()))

    def fail(self, text: str, *, source: str = "dev") -> None:
        """Write what went wrong."""
        self.say(text, colour="red", source=source)

    def write(self, source: str, lines: Iterable[str]) -> None:
        """Write a child's lines as they are."""
        name = click.style(f"{source:>{_WIDTH}}", fg=_COLOURS.get(source, "blue"))
        bar = click.style("│", dim=True)
        for line in lines:
            text = f"{name} {bar} {line}".rstrip()
            with contextlib.suppress(OSError):  # the terminal was closed; SIGHUP follows
                # Coloured children are asked not to be, but a handler may print what it likes.
                click.echo(text if self._coloured else click.unstyle(text), file=self._out)
