"""The documents' tables of crashes are what the tests say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "crash_table.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("crash_table_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_current(script: ModuleType) -> None:
    """After a change of a mark, run ``python scripts/crash_table.py``."""
    assert script.outdated() == {}


TESTS = """
@pytest.mark.crash(2, "the store", lost="nothing", repeated="perhaps")
def test_one(): ...

@pytest.mark.crash(1, "the worker", lost="nothing", repeated="{repeated}")
@pytest.mark.asyncio
async def test_two(): ...

@pytest.mark.crash(1, "the worker", lost="nothing", repeated="the run")
def test_three(): ...

@pytest.mark.parametrize("play", [
    pytest.param(1, marks=pytest.mark.crash(1, "it", without_key="again", with_key="once")),
])
def test_four(play): ...
"""
PAGE = """# Page

<!-- From the tests, by scripts/crash_table.py: -->
old
<!-- end of what is generated -->

The rest.
"""


def write(folder: Path, repeated: str = "the run") -> tuple[Path, Path]:
    """Write pages and tests; return their folders."""
    for page in ("delivery.md", "idempotency.md"):
        (folder / page).write_text(PAGE)
    (folder / "test_it.py").write_text(TESTS.format(repeated=repeated))
    return folder, folder


def test_rows_come_from_the_marks(script: ModuleType, tmp_path: Path) -> None:
    """In the order of their numbers, with all tests of a row; the page around stays."""
    pages = script.outdated(*write(tmp_path))

    delivery = pages[tmp_path / "delivery.md"]
    assert delivery.startswith("# Page\n\n<!-- From")
    assert delivery.endswith("generated -->\n\nThe rest.\n")
    assert (
        """
| what dies, and when | lost | repeated | shown by |
|---|---|---|---|
| the worker | nothing | the run | `test_three`, `test_two` |
| the store | nothing | perhaps | `test_one` |

"""
        in delivery
    )
    assert "| it | again | once |\n" in pages[tmp_path / "idempotency.md"]
    for page, text in pages.items():
        page.write_text(text)
    assert script.outdated(tmp_path, tmp_path) == {}


def test_tests_that_contradict_each_other_are_told(script: ModuleType, tmp_path: Path) -> None:
    """By their names."""
    with pytest.raises(ValueError, match="row 1: test_two and test_three differ"):
        script.outdated(*write(tmp_path, repeated="nothing"))
