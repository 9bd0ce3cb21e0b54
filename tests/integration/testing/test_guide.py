"""docs/testing.md shows tests that pass, and names all there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from convotic_celery.testing import AppUnderTest

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "testing.md").read_text()
SCOPE: dict[str, Any] = {"__name__": "guide"}
for _block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
    exec(compile(_block, "docs/testing.md", "exec"), SCOPE)


@pytest.mark.parametrize("name", [name for name in SCOPE if name.startswith("test_")])
async def test_the_page_s_tests_pass(name: str) -> None:
    """Each of them."""
    await SCOPE[name]()


def test_every_method_is_told() -> None:
    """A new one is documented for authors."""
    names = [name for name in vars(AppUnderTest) if not name.startswith("_")]

    assert [name for name in names if f"app.{name}" not in GUIDE] == []
