"""Click groups: one imports a command only when it is needed; both guess at misspelt names."""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

__all__ = ["GuessingGroup", "LazyGroup"]

#: The first line of a file that has a command.
_FIRST_LINE = re.compile(r'"""``convotic ([a-z-]+)``: (.+?)(?:""")?\n')


class GuessingGroup(click.Group):
    """A group that says which of its commands a misspelt name may have meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments begin with."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            self._refuse(ctx, name)
        return super().resolve_command(ctx, args)

    def _refuse(self, ctx: click.Context, name: str) -> NoReturn:
        near = get_close_matches(name, self.list_commands(ctx), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        ctx.fail(f"No such command {name!r}.{hint}")


class LazyGroup(GuessingGroup):
    """A group of the commands in one package, whose help lists them without importing any.

    A file or package has one if its docstring begins with ``convotic NAME`` in double backticks, a
    colon and the help in one line; it defines ``command``.
    """

    def __init__(self, *args: Any, package: str, folder: Path, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._package = package
        self._found = dict(_find_commands(folder))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names, sorted."""
        return sorted(self._found)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import and return one command, or None for an unknown name."""
        if cmd_name not in self._found:
            return None
        command = import_module(f"{self._package}.{self._found[cmd_name][0]}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the files' first lines alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._found[name][1]) for name in self.list_commands(ctx)])


def _find_commands(folder: Path) -> list[tuple[str, tuple[str, str]]]:
    """Return name, Python module and help of each command, by the first lines of the files."""
    found = []
    for path in folder.iterdir():
        file = path / "__init__.py" if path.is_dir() else path
        if file.suffix != ".py" or not file.is_file():
            continue
        with file.open(encoding="utf-8") as lines:
            match = _FIRST_LINE.match(lines.readline())
        if match:
            found.append((match[1], (path.stem, match[2])))
    return found
