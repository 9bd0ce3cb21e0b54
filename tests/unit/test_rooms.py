"""Each package's docstring says what lives in it: a new file is named there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLI = ROOT / "convotic_celery" / "cli"
#: Where files name themselves: a command a file, a generated twin, parts of one command.
NAMELESS = {
    CLI,
    *(CLI / name for name in ("demo", "dlq", "new")),
    ROOT / "convotic_celery" / "context" / "_sync",
}
PACKAGES = [
    path.parent
    for folder in ("convotic_celery", "transports")
    for path in sorted((ROOT / folder).rglob("__init__.py"))
    if path.parent not in {*NAMELESS, ROOT / "convotic_celery"}
]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_names_its_files(package: Path) -> None:
    """So that a newcomer knows where to look, and notices what was moved."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""

    files = {path.stem for path in package.glob("*.py") if not path.stem.startswith("__")}
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    listed = set(re.findall(r"``(\w+)(?:\.py)?``  ", text))

    assert {name for name in files if not re.search(rf"\b{name}\b", text)} == set()
    assert listed - files - folders == set()
