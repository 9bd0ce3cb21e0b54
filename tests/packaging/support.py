"""Runs what the fresh environment has."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["run"]


def run(environment: Path, *arguments: str, cwd: Path) -> str:
    """Run something of the fresh environment away from the checkout; return what it printed."""
    command = [str(environment / "bin" / arguments[0]), *arguments[1:]]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
