"""From an empty folder to a handler in the dashboard, with the commands that the documents name."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.acceptance.dev import Dev
from tests.support.waiting import PATIENCE


def run(folder: Path, *arguments: str, **environment: str) -> str:
    """Run a command in the folder; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def processor_seconds() -> float:
    """Return what this process's children have used of the processor, once they have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_minute_from_an_empty_folder_to_a_handler_that_ran(
    tmp_path: Path, data_dir: Path
) -> None:
    """Five commands, none of which needs an edit."""
    environment = {"CONVOTIC_DATA_DIR": str(data_dir)}
    began, before = time.monotonic(), processor_seconds()
    run(tmp_path, "convotic_celery.cli", "new", "shop")
    assert "2 passed" in run(tmp_path, "pytest", "-q", "-p", "no:randomly", **environment)
    run(tmp_path, "convotic_celery.cli", "check", **environment)
    with Dev(tmp_path, **environment) as dev:
        dev.wait_for("✓ ready")
        item = '{"id": 1, "name": "first"}'
        run(tmp_path, "convotic_celery.cli", "publish", "custom.shop.new", item, **environment)
        dev.wait_for("Processing item")
        (page,) = (line.split()[1] for line in dev.lines if line.startswith("dashboard "))
        with urllib.request.urlopen(f"{page}api/handlers", timeout=PATIENCE) as answer:
            assert "custom.shop.new.shop" in answer.read().decode()
        took = time.monotonic() - began

    print(f"{took:.1f} s from an empty folder to a handler that ran")  # noqa: T201 - for people
    # On a machine that has nothing else to do; on another the commands took as much of it.
    assert processor_seconds() - before < 60
