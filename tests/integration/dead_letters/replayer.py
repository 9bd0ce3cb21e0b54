"""Resumes a job, to be killed: ``python -m tests.integration.dead_letters.replayer FOLDER JOB``."""

from __future__ import annotations

import sys
from pathlib import Path

from convotic_celery.app import ConvoticApp
from convotic_celery.settings import Settings
from tests.integration.dead_letters.conftest import make_module

if __name__ == "__main__":
    app = ConvoticApp(
        Settings(data_dir=Path(sys.argv[1]), modules=[]),
        make_module().collect().handlers,
        set_as_current=False,
    )
    app.dead_letters.resume(sys.argv[2])
