"""The documentation site: it builds without a warning, and its generated pages are whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import convotic_celery
from convotic_celery.settings import Settings

#: What a module's author imports; the plain form of the context has the async one's methods.
PUBLIC = sorted(set(convotic_celery.__all__) - {"SyncConvoticContext"})

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_setting_has_a_row(site: Path) -> None:
    """By its variable's name."""
    text = (site / "settings.md").read_text()

    assert [
        name
        for name, field in Settings.model_fields.items()
        if f"`{field.validation_alias or f'CONVOTIC_{name.upper()}'}`" not in text
    ] == []


def test_every_command_has_its_help(site: Path) -> None:
    """Those of groups too."""
    text = (site / "commands.md").read_text()

    assert "## convotic publish\n\n```text\nUsage: convotic publish" in text
    assert "## convotic emulator status\n" in text


def test_every_public_name_is_described(site: Path) -> None:
    """With its signature; an address in memory is nobody's type."""
    text = (site / "api.md").read_text()

    assert [name for name in PUBLIC if f"### {name}\n" not in text] == []
    assert "async def publish(" in text
    assert " at 0x" not in text


def test_pages_are_there_as_text(site: Path) -> None:
    """For programs that read documents, with a list."""
    assert "](glossary.md)" in (site / "llms.txt").read_text()
    assert (site / "glossary.md").read_text() == (ROOT / "docs" / "glossary.md").read_text()


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    """Neither fonts nor scripts."""
    page = (site / "index.html").read_text()

    assert 'src="http' not in page
    assert 'rel="stylesheet" href="http' not in page
