"""The documentation site: it builds without a warning, and its generated pages are whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import convotic_celery
from convotic_celery.settings import Settings
from tests.support.browser import SCREENS, open_browser, take_screen
from tests.support.waiting import wait_until

#: What a module's author imports; the plain form of the context has the async one's methods.
PUBLIC = sorted(set(convotic_celery.__all__) - {"SyncConvoticContext"})

#: What is wider than the place it has: the page itself, or code whose end one can't see.
IS_WIDE = """
const page = document.documentElement;
const found = page.scrollWidth > page.clientWidth ? [`page ${page.scrollWidth}`] : [];
for (const code of document.querySelectorAll("pre > code"))
  if (code.scrollWidth > code.clientWidth) found.push(code.textContent.slice(0, 60));
return found;
"""

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


def test_it_is_read_and_searched_from_files(site: Path) -> None:
    """On each screen nothing is to be scrolled sideways and no code is cut; the search finds."""
    with open_browser() as browser:
        # Where a server shows 404.html is not known, so its links begin at the root.
        for name in sorted({path.name for path in site.glob("*.html")} - {"404.html"}):
            for width, scheme in SCREENS if name == "index.html" else SCREENS[2:3]:
                take_screen(browser, width, scheme)
                browser.get(f"{site.as_uri()}/{name}")
                assert browser.execute_script(IS_WIDE) == [], (name, width)
        assert (
            browser.execute_script("return document.body.getAttribute('data-md-color-scheme')")
            == "default"
        )
        take_screen(browser, 1280, "dark")
        browser.get(f"{site.as_uri()}/index.html")
        browser.find_element("css selector", ".md-search__input").send_keys("max_waiting_retries")
        [first, *_] = wait_until(
            lambda: browser.find_elements("css selector", ".md-search-result__link"),
            what="results of the search",
        )
        assert (first.get_attribute("href") or "").startswith("file:")
        assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]  # selenium's
