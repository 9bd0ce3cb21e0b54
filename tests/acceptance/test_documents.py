"""What README and getting-started show, done as a newcomer would."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from convotic_celery import embedded
from convotic_celery.context import Store, SyncContacts
from convotic_celery.context.database import SyncDatabase
from convotic_celery.context.keys import Keys
from convotic_celery.settings import Settings
from tests.acceptance.stage import Stage
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
MODULE = re.compile(r"```python\n# modules/shop\.py\n(.*?)```", re.DOTALL)
PUBLISH = re.compile(r"^\$ convotic (publish .*)$", re.MULTILINE)
#: A block whose first line is the name of the file that it is.
FILE = re.compile(r"```\w+\n(# (\S+)\n.*?)```", re.DOTALL)
LISTING = re.compile(r"^\$ convotic handlers\n(.*?)```", re.DOTALL | re.MULTILINE)


def copy_files(stage: Stage) -> str:
    """Write all files of getting-started as a newcomer would; return the page."""
    text = (ROOT / "docs/getting-started.md").read_text()
    for content, name in FILE.findall(text):
        path = stage.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return text


def run_there(stage: Stage, *arguments: str) -> str:
    """Run a Python module in the newcomer's folder; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=stage.folder,
        env=os.environ | stage.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
def test_the_first_handler_works_as_shown(embedded_stage: Stage, page: str) -> None:
    """The module and the command of the page, copied, end in a contact."""
    text = (ROOT / page).read_text()
    module, command = MODULE.search(text), PUBLISH.search(text)
    assert module is not None
    assert command is not None
    (embedded_stage.folder / "modules" / "shop.py").write_text(module[1])
    url = embedded.store_url(Settings(data_dir=embedded_stage.data_dir))
    store = Store(url)
    contacts = SyncContacts(SyncDatabase(store), Keys("convotic:"))

    with embedded_stage.worker() as worker:
        run_there(embedded_stage, "convotic_celery.cli", *shlex.split(command[1]))
        wait_until(lambda: contacts.find_by_external_id("c-1"))
        line = wait_until(
            lambda: re.search(r"^(.*Processing order.*)\n", worker.read_log(), re.MULTILINE)
        )
        assert line is not None
        assert json.loads(line[1])["order_id"] == 1
    store.close()


def test_getting_started_lists_the_handler(embedded_stage: Stage) -> None:
    """`convotic handlers` prints what the page shows, the folder apart."""
    text = copy_files(embedded_stage)
    shown = LISTING.search(text)
    assert shown is not None

    printed = run_there(embedded_stage, "convotic_celery.cli", "handlers")

    printed = printed.replace(str(embedded_stage.folder), "…")
    assert [line.split() for line in printed.splitlines()] == [
        line.split() for line in shown[1].splitlines()
    ]


def test_getting_started_has_a_test_that_passes(embedded_stage: Stage) -> None:
    """With the files of the page and nothing else."""
    copy_files(embedded_stage)

    printed = run_there(embedded_stage, "pytest", "-q", "-p", "no:cacheprovider")

    assert "1 passed" in printed


def test_getting_started_shows_an_invalid_message(embedded_stage: Stage) -> None:
    """The second command of the page ends where it says: in the dead-letter topic, `invalid`."""
    _, command = PUBLISH.findall(copy_files(embedded_stage))

    with embedded_stage.worker():
        run_there(embedded_stage, "convotic_celery.cli", *shlex.split(command))
        dead_letter = embedded_stage.pull_dead_letter()

    assert dead_letter.attributes["convotic-dead-letter-reason"] == "invalid"
