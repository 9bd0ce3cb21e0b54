"""The `convotic` command, run as a person would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.acceptance.stage import Stage

__all__ = ["convotic", "wait_for_answers"]


def convotic(stage: Stage, *arguments: str, folder: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in the stage's folder, or one in it, with the stage's environment."""
    return subprocess.run(
        [sys.executable, "-m", "convotic_celery.cli", *arguments],
        cwd=stage.folder / folder,
        env=os.environ | stage.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def wait_for_answers(stage: Stage, *arguments: str, workers: set[str]) -> dict[str, str]:
    """Run ``convotic pause`` or ``resume`` until these workers have answered; return what.

    It waits for answers as long as a person likes to wait. A busy worker may take longer, and to
    ask again changes nothing.
    """

    def ask() -> dict[str, str] | None:
        done = convotic(stage, *arguments, "--json")
        answers = json.loads(done.stdout)["workers"]
        found = {node.partition("@")[0]: text for node, text in answers.items()}
        return found if found.keys() >= workers else None

    found = wait_until(ask, what=f"the answers of {workers}")
    assert found is not None
    return found
