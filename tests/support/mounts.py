"""A worker with file systems of its own: nothing is mounted for others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

__all__ = ["start_worker_with_mounts"]


def start_worker_with_mounts(
    script: str, environment: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start a worker whose shell script mounts first, and ends with ``exec "$@"``.

    The test is expected to fail where mount namespaces are not allowed.
    """
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.xfail("mount namespaces are not allowed here")
    worker = ["-m", "celery", "-A", "convotic_celery", "worker", "--loglevel", "INFO"]
    with log.open("wb") as output:
        return subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, *worker],
            env=os.environ | environment,
            stdout=output,
            stderr=output,
        )
