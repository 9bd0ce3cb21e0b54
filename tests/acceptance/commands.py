"""The `convotic` command, run as a person would."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.acceptance.stage import Stage

__all__ = ["convotic"]


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
