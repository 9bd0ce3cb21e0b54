"""Processes that gevent has patched: refused in one line, where they hung."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE

_PUBLISH = """
from gevent import monkey; monkey.patch_all()
from celery import Celery
app = Celery("patched", broker="pubsub://demo", set_as_current=False)
try:
    app.send_task("some.task")
except Exception as error:
    print(type(error).__name__, error)
"""


def run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PUBSUB_EMULATOR_HOST": "127.0.0.1:1"}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_publish_after_monkey_patching_is_refused(tmp_path: Path) -> None:
    """At once, with what to use instead."""
    done = run(sys.executable, "-c", _PUBLISH, folder=tmp_path)

    assert done.stdout.startswith("PubsubTransportError pubsub:// does not work in a process that")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.filterwarnings("ignore")
def test_the_pool_gevent_is_refused(tmp_path: Path) -> None:
    """By the command line, before anything starts."""
    celery = str(Path(sys.executable).parent / "celery")
    done = run(celery, "-A", "convotic_celery", "worker", "-P", "gevent", folder=tmp_path)

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Error: The pool gevent is not supported")


@pytest.mark.filterwarnings("ignore")
def test_a_plain_apps_worker_says_so_in_one_line(tmp_path: Path) -> None:
    """The worker of an application that knows nothing of Convotic ends without a traceback."""
    (tmp_path / "plain.py").write_text(_PLAIN)
    celery = str(Path(sys.executable).parent / "celery")

    done = run(celery, "-A", "plain", "worker", "-P", "gevent", folder=tmp_path)

    assert done.returncode == 1
    assert "The worker ends: pubsub:// does not work in a process that gevent" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


_PLAIN = """
from celery import Celery
app = Celery("plain", broker="pubsub://demo")
"""
