"""What README and getting-started show, done as a newcomer would."""

from __future__ import annotations

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

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]
MODULE = re.compile(r"```python\n# modules/shop\.py\n(.*?)```", re.DOTALL)
PUBLISH = re.compile(r"^\$ convotic (publish .*)$", re.MULTILINE)


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

    with embedded_stage.worker():
        subprocess.run(
            [sys.executable, "-m", "convotic_celery.cli", *shlex.split(command[1])],
            cwd=embedded_stage.folder,
            env=os.environ | embedded_stage.environment,
            check=True,
        )
        wait_until(lambda: contacts.find_by_external_id("c-1"), timeout=15)
    store.close()


def test_getting_started_shows_an_invalid_message(embedded_stage: Stage) -> None:
    """The second command of the page ends where it says: in the dead-letter topic, `invalid`."""
    text = (ROOT / "docs/getting-started.md").read_text()
    module = MODULE.search(text)
    _, command = PUBLISH.findall(text)
    assert module is not None
    (embedded_stage.folder / "modules" / "shop.py").write_text(module[1])

    with embedded_stage.worker():
        subprocess.run(
            [sys.executable, "-m", "convotic_celery.cli", *shlex.split(command)],
            cwd=embedded_stage.folder,
            env=os.environ | embedded_stage.environment,
            check=True,
        )
        dead_letter = embedded_stage.pull_dead_letter()

    assert dead_letter.attributes["convotic-dead-letter-reason"] == "invalid"
