"""Flower's tab *Dead letters*, as a person uses it in a browser."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from convotic_celery.dead_letters import Match
from tests.acceptance.stage import Stage
from tests.acceptance.test_dead_letters import BILLING, MAIL, STOCK, fail_orders, open_app, stage
from tests.acceptance.test_flower import Pages, read_json, run_flower
from tests.support.browser import open_browser, page_text
from tests.support.waiting import PATIENCE, wait_until

__all__ = ["stage"]


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    """Debian's Chromium without a window."""
    with open_browser() as started:
        started.set_window_size(1400, 1000)  # else the tabs are in a menu
        yield started


def click(browser: webdriver.Chrome, selector: str) -> None:
    """Press what is on the page; Flower scrolls smoothly, so it is brought into sight before."""
    element = browser.find_element(By.CSS_SELECTOR, selector)
    browser.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element
    )
    element.click()


def test_dead_letters_are_found_and_replayed_in_flower(
    stage: Stage, browser: webdriver.Chrome
) -> None:
    """The tab, a filter, one dead letter, an edit, a group's replay, a task's Replay."""
    with stage.worker(), open_app(stage) as app, run_flower(stage) as url:
        pages = Pages(browser, url)
        pages.wait_for("/workers", "celery@", "Online", "Dead letters")
        fail_orders(stage, app, 6)
        page = pages.wait_for("/dead-letters", BILLING, STOCK, MAIL, "KeyError", ":reject")
        assert "18 of 18" in page
        page = pages.read(f"/dead-letters?handler={STOCK}&payload=id%3D3")
        assert "KeyError" in page
        assert MAIL not in browser.find_element(By.ID, "entries").text
        save(browser, "list")

        (found,) = app.dead_letters.list(Match(handler=STOCK, payload={"id": "3"})).items
        page = pages.read(f"/dead-letters/show/{found.id}")
        assert '"id": 3' in page
        assert "desk:reject" in page
        area = browser.find_element(By.ID, "edited")
        area.clear()
        area.send_keys('{"id": 33}')
        click(browser, "#edit")
        wait_until(lambda: app.dead_letters.show(found.id).edited == b'{"id": 33}')
        save(browser, "one")
        (stage.folder / "mended").touch()

        pages.read(f"/dead-letters?handler={STOCK}&error=KeyError")
        click(browser, ".replay-group")
        wait_until(lambda: "3 of 3" in page_text(browser))
        save(browser, "job")
        wait_until(lambda: len(stage.read_runs("stock")) == 3, timeout=PATIENCE)
        assert {run["data"]["id"] for run in stage.read_runs("stock")} == {1, 33, 5}
        assert stage.read_runs("mail") == []
        assert {line["by"] for line in app.dead_letters.log()} == {"Flower"}

        failed = f"{url}/api/tasks?taskname={MAIL}&state=FAILURE"
        task_id = min(wait_until(lambda: read_json(failed), what="a failed task"))
        pages.wait_for(f"/task/{task_id}", "FAILURE", "Replay")
        assert "convotic_celery" not in browser.find_element(By.CSS_SELECTOR, "#task-page").text
        save(browser, "task")
        click(browser, "#task-replay")
        wait_until(lambda: len(stage.read_runs("mail")) == 1, timeout=PATIENCE)

        page = pages.read("/broker")
        assert "oldest" in page.lower()
        save(browser, "broker")


def test_flower_refuses_what_is_not_allowed(stage: Stage) -> None:
    """No user without a login, no form of another site, nothing in read-only mode; no payload."""
    hidden = {"CONVOTIC_SHOW_PAYLOADS": "false", "FLOWER_BASIC_AUTH": "ada:secret"}
    with stage.worker(), open_app(stage) as app:
        fail_orders(stage, app, 1)
        entry = app.dead_letters.list().items[0].id
        with run_flower(stage, **hidden) as url:
            assert ask(f"{url}/dead-letters").status == 401
            page = ask(f"{url}/dead-letters/show/{entry}", login="ada:secret")
            assert (page.status, "hidden (CONVOTIC_SHOW_PAYLOADS)" in page.text) == (200, True)
            assert '"id": 0' not in page.text
            export = ask(f"{url}/dead-letters/export", login="ada:secret").text
            assert all("data" not in json.loads(line) for line in export.splitlines())
            for asked in ("dead-letters", "dead-letters/export"):  # a hit would tell it
                search = ask(f"{url}/{asked}?payload=id%3D0", login="ada:secret")
                assert (search.status, "hidden" in search.text) == (403, True)
            wrong = ask(f"{url}/dead-letters?attribute=100%25", login="ada:secret")
            assert (wrong.status, "'100%' is not" in unescape(wrong.text)) == (400, True)
            no_job = ask(f"{url}/dead-letters/job/none", login="ada:secret")
            assert (no_job.status, "there is no job" in no_job.text) == (404, True)
            act = f"{url}/dead-letters/act/replay"
            no_token = ask(act, login="ada:secret", form={"ids": entry})
            assert (no_token.status, "_xsrf" in no_token.text) == (403, True)
            wrong = ask(act, login="ada:wrong", form={"ids": entry, "_xsrf": "2|1|2|3"})
            assert wrong.status in (401, 403)
            token = page.cookie.partition("=")[2]
            form = {"ids": entry, "_xsrf": token}
            done = ask(act, login="ada:secret", form=form, cookie=page.cookie)
            assert (done.status, "/dead-letters/job/" in done.url) == (200, True)
        assert {line["by"] for line in app.dead_letters.log()} == {"ada (Flower)"}
        with run_flower(stage, **hidden, FLOWER_READ_ONLY="true") as url:
            page = ask(f"{url}/dead-letters", login="ada:secret")
            assert "read-only" in page.text
            assert "replay-group" not in page.text
            form = {"ids": entry, "_xsrf": page.cookie.partition("=")[2]}
            refused = ask(
                f"{url}/dead-letters/act/purge", login="ada:secret", form=form, cookie=page.cookie
            )
            assert refused.status == 403


class Answer:
    """What a server has answered."""

    def __init__(self, status: int, url: str, text: str, cookie: str) -> None:
        self.status, self.url, self.text, self.cookie = status, url, text, cookie


def ask(
    url: str, *, login: str = "", form: dict[str, str] | None = None, cookie: str = ""
) -> Answer:
    """Ask a page, or post a form to it; redirects are followed."""
    data = None if form is None else urllib.parse.urlencode(form).encode()
    request = urllib.request.Request(url, data)
    if login:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    if cookie:
        request.add_header("Cookie", cookie)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            found = (answer.headers.get("Set-Cookie") or "").partition(";")[0]
            return Answer(answer.status, answer.url, answer.read().decode(), found)
    except urllib.error.HTTPError as error:
        return Answer(error.code, url, error.read().decode(), "")


def save(browser: webdriver.Chrome, name: str) -> None:
    """Keep a picture where somebody has asked for it."""

    folder = os.environ.get("TEST_PICTURES")
    if folder:
        browser.save_screenshot(str(Path(folder) / f"flower-{name}.png"))
