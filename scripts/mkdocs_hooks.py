"""Pages that mkdocs makes from the code, and the documents as text; see ``hooks`` in mkdocs.yml.

``settings.md`` lists every setting, ``commands.md`` the help of every command and ``api.md`` the
public API, so none can go stale. After a build, each page lies beside its HTML as Markdown,
``llms.txt`` lists them, and the search works from files too.
"""

# ruff: noqa: INP001 - a program, not a package

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from mkdocs.structure.files import File, Files
from pydantic_core import PydanticUndefined

from convotic_celery.cli import cli
from convotic_celery.settings import Settings

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads this file by its path
from api_reference import api_page

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

_SETTINGS = """# Settings

Every setting is an environment variable, checked when a process starts. A misspelt one is an error.
`convotic settings` shows the values in effect and where each comes from. Durations are seconds.

| variable | default | |
|---|---|---|
"""
_COMMANDS = """# Commands

What `convotic COMMAND --help` prints. Complete commands and options with the Tab key:
`eval "$(_CONVOTIC_COMPLETE=bash_source convotic)"` (or `zsh_source`, `fish_source`). Celery's own
commands take the app as usual: `celery -A convotic_celery worker`, `inspect`, `control`, `flower`.

"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages (called by mkdocs)."""
    for name, text in _generated_pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Write the pages as Markdown, and their list (called by mkdocs)."""
    site = Path(config.site_dir)
    pages = {path.name: path.read_text() for path in sorted(Path(config.docs_dir).glob("*.md"))}
    pages |= _generated_pages()
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    for name, text in pages.items():
        (site / name).write_text(text)
        title = re.search(r"^# (.+)$", text, re.MULTILINE)
        lines.append(f"- [{title[1] if title else name}]({name})")
    (site / "llms.txt").write_text("\n".join(lines) + "\n")
    _write_file_search(site)


def _write_file_search(site: Path) -> None:
    """Write what ``assets/file-search.js`` loads where the pages were opened as files."""
    index = (site / "search" / "search_index.json").read_text()
    (site / "search" / "search_index.js").write_text(f"var __index = {index};\n")
    (worker,) = (site / "assets" / "javascripts" / "workers").glob("search.*.js")
    text = json.dumps(worker.read_text())
    (site / "search" / "worker.js").write_text(f"var searchWorker = {text};\n")


@functools.cache
def _generated_pages() -> dict[str, str]:
    return {"api.md": api_page(), "settings.md": settings_page(), "commands.md": commands_page()}


def settings_page() -> str:
    """Return the page of all settings."""
    rows = []
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        variable = alias if isinstance(alias, str) else f"CONVOTIC_{name.upper()}"
        text = (field.description or "").replace("|", "\\|").replace("<", "&lt;")
        rows.append(f"| `{variable}` | {_default(field)} | {text} |")
    return _SETTINGS + "\n".join(rows) + "\n"


def _default(field: Any) -> str:
    if field.default in (None, PydanticUndefined, "") or field.default_factory:
        return ""
    value = field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:.12g}`" if isinstance(value, float) else f"`{value}`"


def commands_page() -> str:
    """Return the page of all commands."""
    return _COMMANDS + "\n".join(
        f"## {path}\n\n```text\n{text}\n```\n" for path, text in _helps(cli, "convotic")
    )


def _helps(command: click.Command, path: str) -> Iterator[tuple[str, str]]:
    context = click.Context(command, info_name=path, max_content_width=100, terminal_width=100)
    yield path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from _helps(found, f"{path} {name}")
