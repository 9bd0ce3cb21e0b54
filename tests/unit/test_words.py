"""One word, one meaning: words that docs/glossary.md replaces don't come back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click

from convotic_celery.cli import cli

ROOT = Path(__file__).resolve().parents[2]
CODE = ("convotic_celery", "transports", "modules")
#: Rooms whose docstrings module authors read.
PUBLIC = ("sdk", "context", "testing", "errors.py", "settings.py", "log.py")

#: In nobody's text or names: the thing has another word now.
GONE = re.compile(
    r"\bthe seed\b|slip of the pen|post_without_hurry|\bPolicyCalls\b|\bLeaseRules\b|\bKeyLines\b"
    r"|\bRunControl\b|\bBURYING\b|\bKeyGuard\b|\bKeptLease\b|\bLeaseKeeper\b"
    r"|\bScheduleMover\b|\bcalm_garbage",
    re.IGNORECASE,
)
#: In nothing that users read.
STILTED = re.compile(
    r"\banew\b|\bcomes? again\b|\bwhoever\b|\bin silence\b|\b(is|are) told\b|\bsaid once\b"
    r"|\bfor ever\b|\bbur(y|ied|ying)\b|\bgiven? up\b|\bgives up\b",
    re.IGNORECASE,
)


def read_pages() -> Iterator[tuple[str, str]]:
    """Yield each page, by its name, but the one that lists the words."""
    for path in [*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        if path.name != "glossary.md":
            yield path.name, path.read_text()


def read_help(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """Yield the help of a command and its subcommands."""
    context = click.Context(command, info_name=name)
    yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from read_help(found, f"{name} {each}")


def read_code() -> Iterator[tuple[str, str]]:
    """Yield each file of ours, by its path."""
    for folder in CODE:
        for path in (ROOT / folder).rglob("*.py"):
            yield str(path.relative_to(ROOT)), path.read_text()


def read_messages(text: str) -> Iterator[str]:
    """Yield what a file logs and raises."""
    for node in ast.walk(ast.parse(text)):
        shown = node.exc if isinstance(node, ast.Raise) else node
        if isinstance(shown, ast.Call) and (shown is not node or _logs(shown)):
            for part in ast.walk(shown):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


def _logs(call: ast.Call) -> bool:
    levels = ("debug", "info", "warning", "error", "exception", "critical")
    return isinstance(call.func, ast.Attribute) and call.func.attr in levels


def read_docstrings(text: str) -> Iterator[str]:
    """Yield the docstrings of a file."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, kinds):
            yield ast.get_docstring(node) or ""


def find(pattern: re.Pattern[str], where: str, text: str) -> list[str]:
    """Return the places of a pattern, with what stands around."""
    return [
        f"{where}: {text[max(0, m.start() - 40) : m.end() + 20]}" for m in pattern.finditer(text)
    ]


def test_replaced_names_stay_away() -> None:
    """In documents, help and code."""
    texts = [*read_pages(), *read_help(cli, "convotic"), *read_code()]

    assert [each for where, text in texts for each in find(GONE, where, text)] == []


def test_documents_and_help_speak_plainly() -> None:
    """As a colleague would."""
    texts = [*read_pages(), *read_help(cli, "convotic")]

    assert [each for where, text in texts for each in find(STILTED, where, text)] == []


def test_messages_speak_plainly() -> None:
    """Errors and log lines."""
    found = []
    for where, text in read_code():
        for message in read_messages(text):
            found += find(STILTED, where, message)

    assert found == []


def test_public_docstrings_speak_plainly() -> None:
    """Those that an editor shows to a module's author."""
    found = []
    for where, text in read_code():
        if where.startswith(tuple(f"convotic_celery/{room}" for room in PUBLIC)):
            for docstring in read_docstrings(text):
                found += find(STILTED, where, docstring)

    assert found == []
