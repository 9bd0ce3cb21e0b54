"""The nursery of `convotic dev`: what a reload costs is the import of the modules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from convotic_celery.cli.dev.programs import PROGRAMS, load
program = PROGRAMS[sys.argv[1]]
program.preload()
before = set(sys.modules)
load(debug=False)
print(len(before), len(set(sys.modules) - before))
"""


@pytest.mark.parametrize("program", ["worker", "routes", "dashboard", "beat"])
def test_what_is_forked_has_imported_what_loading_needs(program: str, tmp_path: Path) -> None:
    """Nearly nothing is left to import but the modules themselves."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(int, done.stdout.split())

    assert before > 500
    assert after < 30
