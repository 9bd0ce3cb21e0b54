"""What is published from this repository, and runs of what a fresh environment has."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

__all__ = ["DISTRIBUTIONS", "ROOT", "Distribution", "run"]

ROOT = Path(__file__).parents[2]


class Distribution(NamedTuple):
    """A distribution: its folder in the repository, and the top level of its wheel."""

    folder: str
    packages: frozenset[str]
    files: frozenset[str] = frozenset()


DISTRIBUTIONS = {
    "convotic-celery": Distribution(
        ".", frozenset({"convotic_celery", "convotic_order_processor"})
    ),
    "convotic-pubsub": Distribution(
        "transports", frozenset({"convotic_pubsub"}), frozenset({"convotic_pubsub.pth"})
    ),
    "convotic-emulator": Distribution(
        "transports/convotic_emulator", frozenset({"convotic_emulator"})
    ),
    "convotic-local": Distribution("transports/convotic_local", frozenset({"convotic_local"})),
    "convotic-protos": Distribution("transports/convotic_protos", frozenset({"convotic_protos"})),
}


def run(environment: Path, *arguments: str, cwd: Path) -> str:
    """Run something of the fresh environment away from the checkout; return what it printed."""
    command = [str(environment / "bin" / arguments[0]), *arguments[1:]]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
