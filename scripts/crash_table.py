"""Write the documents' tables of crashes from the tests that play them.

A test says which row it plays; rows of one page stand in the order of their numbers::

    @pytest.mark.crash(3, "the worker, while the handler runs", lost="nothing", repeated="...")

Usage: ``python scripts/crash_table.py`` writes the tables, ``--check`` only says if they are
current. The tests are read and not imported.
"""

# ruff: noqa: INP001 - a program, not a package

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN = "<!-- From the tests, by scripts/crash_table.py: -->\n"
END = "<!-- end of what is generated -->\n"


@dataclass(frozen=True)
class Table:
    """One page's table: a mark belongs to it that has just its columns."""

    page: str
    #: The mark's keywords, and the headings.
    columns: Mapping[str, str]
    names_tests: bool = False


TABLES = (
    Table("delivery.md", {"lost": "lost", "repeated": "repeated"}, names_tests=True),
    Table(
        "idempotency.md",
        {"without_key": "without a key", "with_key": "with `deduplicate=`"},
    ),
)


@dataclass(frozen=True)
class Mark:
    """What one test says about one row."""

    number: int
    what: str
    cells: Mapping[str, str]
    test: str


def read_marks(folder: Path) -> Iterator[Mark]:
    """Yield the marks of all tests below the folder, parameters' marks too."""
    for path in sorted(folder.rglob("test_*.py")):
        text = path.read_text()
        if "mark.crash(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for decorator in node.decorator_list:
                    yield from _read_decorator(decorator, node.name)


def _read_decorator(decorator: ast.expr, test: str) -> Iterator[Mark]:
    for call in ast.walk(decorator):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.crash":
            number, what = (ast.literal_eval(argument) for argument in call.args)
            cells = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
            yield Mark(number, what, cells, test)


def render(table: Table, marks: list[Mark]) -> str:
    """Return the table in Markdown.

    Raises:
        ValueError: Two tests say different things about one row, or a number is taken.
    """
    rows: dict[int, list[Mark]] = {}
    for mark in marks:
        if set(mark.cells) == set(table.columns):
            rows.setdefault(mark.number, []).append(mark)
    headings = ["what dies, and when", *table.columns.values()]
    headings += ["shown by"] if table.names_tests else []
    lines = [headings, ["---"] * len(headings)]
    for number, found in sorted(rows.items()):
        first = found[0]
        for other in found:
            if (other.what, other.cells) != (first.what, first.cells):
                tests = f"{first.test} and {other.test}"
                raise ValueError(f"{table.page}, row {number}: {tests} differ")
        cells = [first.what, *(first.cells[column] for column in table.columns)]
        names = ", ".join(f"`{name}`" for name in sorted({mark.test for mark in found}))
        lines.append([*cells, names] if table.names_tests else cells)
    return "".join(f"| {' | '.join(cells)} |\n".replace("| --- ", "|---") for cells in lines)


def outdated(docs: Path = ROOT / "docs", tests: Path = ROOT / "tests") -> dict[Path, str]:
    """Return the pages whose table is not current, with what they should be.

    Raises:
        ValueError: A mark fits no table, or the tests contradict each other.
    """
    marks = list(read_marks(tests))
    columns = [set(table.columns) for table in TABLES]
    for mark in marks:
        if set(mark.cells) not in columns:
            raise ValueError(f"{mark.test}: no table has the columns {sorted(mark.cells)}")
    found = {}
    for table in TABLES:
        page = docs / table.page
        text = page.read_text()
        before, _, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not end:
            raise ValueError(f"{page} has no place for the table: {BEGIN.strip()} … {END.strip()}")
        wanted = f"{before}{BEGIN}\n{render(table, marks)}\n{END}{after}"
        if wanted != text:
            found[page] = wanted
    return found


def main(arguments: list[str]) -> int:
    """Write the tables, or with ``--check`` return 1 if one is not current."""
    pages = outdated()
    for page, text in pages.items():
        if "--check" in arguments:
            sys.stderr.write(f"{page} is not current; run python scripts/crash_table.py\n")
        else:
            page.write_text(text)
    return int("--check" in arguments and bool(pages))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
