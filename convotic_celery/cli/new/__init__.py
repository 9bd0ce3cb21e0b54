"""``convotic new``: Create a module, its test, and what both need to run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from convotic_celery.cli.options import examples

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["command"]

#: Where pytest reads its settings, the first of them that has any.
_PYTEST_FILES = {
    "pytest.ini": "",
    ".pytest.ini": "",
    "pyproject.toml": "[tool.pytest",
    "tox.ini": "[pytest]",
    "setup.cfg": "[tool:pytest]",
}

_PYTEST_NEEDS = "asyncio_mode = auto, pythonpath = modules"


@click.command(
    "new",
    epilog=examples("convotic new shop", "convotic new crm --topic custom.contacts.changed"),
)
@click.argument("name")
@click.option("--topic", help="Topic of its first handler. Default: custom.NAME.new.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(name: str, topic: str | None, as_json: bool) -> None:
    """Create the module NAME in ./modules, a test of it, and the files that a project needs.

    pytest.ini, .gitignore and .vscode/launch.json are created if they are missing. No existing file
    is changed. The module runs and its test passes as they are.
    """
    import json

    from convotic_celery.names import check_module_name, check_resource_name
    from convotic_celery.settings import Settings

    check_module_name(name)
    topic = topic or f"custom.{name}.new"
    check_resource_name("topic", topic)
    modules = Settings().modules_dir.expanduser().resolve()
    stem = _stem_of(name, modules)
    root = modules.parent
    wanted = _fill(root, modules.name, {"name": name, "topic": topic, "stem": stem})
    own = [modules / f"{stem}.py", root / "tests" / f"test_{stem}.py"]
    for path in own:
        if path.exists() or (modules / stem).exists():
            raise click.ClickException(f"{_show(path)} exists already; nothing was written.")
    written = [path for path, text in wanted.items() if text and _write(path, text)]
    kept = [path for path in wanted if path not in written]
    if as_json:
        shown = {"written": [*map(_show, written)], "kept": [*map(_show, kept)], "topic": topic}
        click.echo(json.dumps(shown, indent=2))
        return
    for verb, paths in (("wrote", written), ("kept", kept)):
        for path in paths:
            click.echo(f"{verb:<5}  {_show(path)}")
    _say_what_next(topic, kept)


def _stem_of(name: str, modules: Path) -> str:
    """Return the name of the module's file; raises BadParameter where it can't be imported."""
    import importlib.util
    import keyword
    import sys

    stem = name.replace("-", "_")
    if keyword.iskeyword(stem):
        reason = "is a keyword of Python"
    elif stem in sys.stdlib_module_names:
        reason = "is a module of Python's standard library"
    elif not (modules / stem).exists() and importlib.util.find_spec(stem) is not None:
        reason = "is an installed package, which the file would hide"
    else:
        return stem
    raise click.BadParameter(f"{stem!r} {reason}: choose another name.", param_hint="NAME")


def _fill(root: Path, modules: str, values: Mapping[str, str]) -> dict[Path, str]:
    """Return the files' texts; "" for one that is not to be written."""
    from string import Template

    from convotic_celery.cli.new import templates

    settings = _find_pytest_settings(root)
    texts = {
        root / modules / f"{values['stem']}.py": templates.MODULE,
        root / "tests" / f"test_{values['stem']}.py": templates.TEST,
        settings or root / "pytest.ini": "" if settings else templates.PYTEST,
        root / ".gitignore": templates.GITIGNORE,
        root / ".vscode" / "launch.json": templates.LAUNCH,
    }
    return {
        path: Template(text).substitute(values, modules=modules) for path, text in texts.items()
    }


def _find_pytest_settings(root: Path) -> Path | None:
    """Return the file that has them; another one would replace it."""
    for name, mark in _PYTEST_FILES.items():
        path = root / name
        if path.is_file() and mark in path.read_text(encoding="utf-8"):
            return path
    return None


def _write(path: Path, text: str) -> bool:
    """Write a file that does not exist; return whether it was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _say_what_next(topic: str, kept: list[Path]) -> None:
    import importlib.util

    missing = [name for name in ("pytest", "pytest_asyncio") if not importlib.util.find_spec(name)]
    steps = [("pytest", "the tests"), ("convotic dev", "everything, reloaded on save")]
    if missing:
        packages = " ".join(name.replace("_", "-") for name in missing)
        steps.insert(0, (f"python -m pip install {packages}", "what the tests need"))
    steps.append((f'convotic publish {topic} \'{{"id": 1, "name": "first"}}\'', "a message"))
    click.echo("\nNext:")
    for step, what in steps:
        click.echo(f"  {step:<40}  # {what}")
    for path in kept:
        needed = ".convotic/" if path.name == ".gitignore" else _PYTEST_NEEDS
        is_other = path.name not in {".gitignore", *_PYTEST_FILES}
        if not is_other and needed.partition(" ")[0] not in path.read_text(encoding="utf-8"):
            click.echo(f"\n{_show(path)} was not changed; it needs: {needed}")


def _show(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
