"""The dashboard, as a person uses it in a browser, beside a real worker."""

from __future__ import annotations

import itertools
import json
import os
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    StaleElementReferenceException,
)
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from convotic_celery.cli.demo.child import Child
from tests.acceptance.stage import QUEUE, Stage
from tests.support.browser import open_browser, page_text, take_screen
from tests.support.waiting import PATIENCE, wait_until

WIDTHS = {"desk": 1280, "phone": 390}

MANY = """
from convotic_celery import ConvoticModule

module = ConvoticModule(name="many", version="1")


async def handler(message, ctx): ...


for number in range(300):
    module.worker(f"custom.topic-{number:03}", max_retries=1)(handler)
"""

FOCUS_SCRIPT = """
    const done = arguments[arguments.length - 1];
    import("./static/dom.js").then(({ h, patch }) => {
      const field = h("input", { key: "field" });
      const parent = document.body.appendChild(document.createElement("div"));
      patch(parent, [h("p", { key: "above" }), field]);
      parent.querySelector("input").focus();
      patch(parent, [field]);
      done(document.activeElement.tagName);
    });
"""

SURE_SCRIPT = """
    const done = arguments[arguments.length - 1];
    Promise.all([import("./static/dom.js"), import("./static/parts.js")]).then(([dom, parts]) => {
      let acted = 0;
      const parent = document.body.appendChild(document.createElement("div"));
      const draw = () => dom.patch(parent, [parts.sureButton("Go", "Go?", () => { acted += 1; })]);
      const press = () => { parent.querySelector("button").click(); draw(); };
      draw();
      const seen = [press, press].map((act) => { act(); return [parent.innerText, acted]; });
      done(seen);
    });
"""

#: A response whose head has come is aborted before its body has.
ABORT_SCRIPT = """
    const done = arguments[arguments.length - 1];
    const onlyHead = async (_path, { signal }) => new Response(new ReadableStream({
      start: (body) => signal.addEventListener("abort", () => body.error(signal.reason)),
    }));
    import("./static/api.js").then(async ({ get }) => {
      const { fetch } = window;
      window.fetch = onlyHead;
      const controller = new AbortController();
      const asked = get("badges", controller.signal);
      window.fetch = fetch;
      setTimeout(() => controller.abort());
      asked.then((content) => done(["an answer", content]), () => done(["no answer"]));
    });
"""


@contextmanager
def run_dashboard(stage: Stage, *options: str, **environment: str) -> Iterator[str]:
    """Run ``convotic dashboard`` on a free port; yield its address once it is printed."""
    log = stage.folder / "dashboard.log"
    child = Child(
        ["convotic_celery.cli", "dashboard", "--port", "0", *options],
        environment=os.environ | stage.environment | environment,
        log=log,
        cwd=stage.folder,
    )
    with child:
        try:
            found = wait_until(
                lambda: re.findall(r"http://127\.0\.0\.1:\d+/", log.read_text()),
                what="the dashboard's address",
            )
            yield found[0]
            child.terminate()
            child.wait(PATIENCE)
        except BaseException:
            print(log.read_text()[-4000:])  # noqa: T201 - pytest shows it with the failure
            raise


class Person:
    """Somebody who looks at the dashboard."""

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self.browser = browser
        self._url = url

    def go(self, path: str) -> None:
        """Open a page."""
        self.browser.get("about:blank")
        self.browser.get(f"{self._url}#/{path}")

    def see(self, text: str) -> None:
        """Wait until the page has this text."""
        wait_until(lambda: text in self.read(), what=f"{text!r} on the page")

    def read(self) -> str:
        """Return what is on the page."""
        return page_text(self.browser)

    def read_all(self, selector: str) -> list[str]:
        """Return the texts of elements, all of one moment."""
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText)"
        return list(self.browser.execute_script(script, selector))

    def find(self, selector: str, text: str = "") -> WebElement:
        """Wait for an element with this text."""
        return wait_until(lambda: self._look(selector, text), what=f"{selector} with {text!r}")[0]

    def press(self, selector: str, text: str, *, sure: str = "") -> None:
        """Press what has this text, and then the question ``sure`` that it becomes, if any.

        The page may draw itself again in between, a message may cover it, and a question that is
        not answered within seconds is taken back.
        """

        def try_it() -> bool:
            wanted = self._look(selector, sure or text)
            asked = not wanted and sure and self._look(selector, text)
            try:
                for each in (wanted or asked or [])[:1]:
                    each.click()
            except (StaleElementReferenceException, ElementClickInterceptedException):
                return False
            return bool(wanted)

        wait_until(try_it, what=f"{sure or text!r} pressed")

    def _look(self, selector: str, text: str) -> list[WebElement]:
        try:
            found = self.browser.find_elements(By.CSS_SELECTOR, selector)
            return [each for each in found if text in each.text]
        except StaleElementReferenceException:
            return []

    def resize(self, width: int, scheme: str) -> None:
        """Take another screen."""
        take_screen(self.browser, width, scheme)

    def read_errors(self) -> list[dict[str, Any]]:
        """Return what the browser complained about."""
        return list(self.browser.get_log("browser"))  # type: ignore[no-untyped-call]  # selenium's


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    with open_browser() as started:
        yield started


def test_a_failure_is_seen_mended_and_replayed(stage: Stage, browser: webdriver.Chrome) -> None:
    """From the first page to the cause, to the message; edited, replayed, and gone from there."""
    with stage.worker(), run_dashboard(stage) as url:
        person = Person(browser, url)
        message_id = stage.publish(b'{"id": 1, "fail": true}', region="eu")
        person.go("")
        person.press(".attention .row-link", "RuntimeError")
        person.see("this order always fails")
        person.see("process_order")
        person.press("td .row-link", message_id)
        person.see('"fail": true')
        person.see("region")

        person.press("button", "Edit")
        field = person.find("textarea")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys('{"id": 2}')
        person.press("button", "Save for the next replay")
        person.see("Edited data")
        person.press("button", "Replay it", sure="Replay it?")

        [ended] = wait_until(lambda: stage.read_runs("end"))
        assert ended["data"] == {"id": 2}
        person.go("dead-letters")
        person.see("No dead letters")
        see_figures(person, is_known=stage.google_address is None)
        assert person.read_errors() == []


def see_figures(person: Person, *, is_known: bool) -> None:
    """See how the two runs ended; and what waits, or a dash and why where nobody knows."""

    def has_outcomes() -> bool:
        person.go(f"handlers/{QUEUE}")
        person.find(".panel", "Last outcomes")
        panels = [text for text in person.read_all(".panel") if "Last outcomes" in text]
        seen = ("succeeded", "dead letter", "RuntimeError")
        return any(all(each in text for each in seen) for text in panels)

    wait_until(has_outcomes, what="both outcomes: the worker stores them once a second")
    person.go("")
    person.see(QUEUE)
    waiting = ["0", "nothing waits"] if is_known else ["\N{EN DASH}", "not known"]
    expected = {"Dead letters": ["0", "none"], "Waiting": waiting}

    def has_tiles() -> bool:  # an acknowledgement may be on its way
        tiles = {name: text for name, *text in (t.split("\n") for t in person.read_all(".tile"))}
        return expected.items() <= tiles.items()

    wait_until(has_tiles, what=f"{expected} in the tiles")
    if not is_known:
        person.see("Queue lengths are not known")


def test_a_message_is_published_by_keyboard(
    embedded_stage: Stage, browser: webdriver.Chrome
) -> None:
    """Without a mouse: to the handler, with the example that the page gives, and it runs."""
    with embedded_stage.worker(), run_dashboard(embedded_stage) as url:
        person = Person(browser, url)
        person.go("")
        person.see(QUEUE)
        browser.switch_to.active_element.send_keys("/")
        assert browser.switch_to.active_element.get_attribute("type") == "search"
        browser.switch_to.active_element.send_keys("nothing like it")
        person.see("Nothing matches")
        person.go(f"publish/{QUEUE}")
        person.find("textarea").send_keys(Keys.TAB)
        person.find("form.form button.primary").send_keys(Keys.ENTER)
        person.see("message id")

        wait_until(lambda: embedded_stage.read_runs("end"), what="the run")
        person.go("workers")
        person.see("asyncio")


def test_every_page_fits_every_screen(embedded_stage: Stage, browser: webdriver.Chrome) -> None:
    """At 1,280 and 390 px, light and dark: nothing to be scrolled sideways, nothing in the way."""
    with embedded_stage.worker(), run_dashboard(embedded_stage) as url:
        person = Person(browser, url)
        long = "x" * 300
        message_id = embedded_stage.publish(
            b'{"id": 1, "fail": true, "text": "%s"}' % long.encode(), **{"k" * 90: long}
        )
        pages = {
            "": "Handlers",
            "dead-letters": "RuntimeError",
            f"handlers/{QUEUE}": "Subscription",
            f"publish/{QUEUE}": "Attributes",
            "delayed": "No delayed messages",
            "workflows": "No workflow has run",
            "workers": "process",
            "nothing/here": "no such page",
        }
        person.go("")
        person.find(".attention")
        for path, text in pages.items():
            person.go(path)
            person.see(text)
            for width, scheme in itertools.product(WIDTHS.values(), ("light", "dark")):
                person.resize(width, scheme)
                see_that_it_fits(browser, width, path)
        person.go("dead-letters")
        person.press("td .row-link", "")
        person.press("td .row-link", message_id)
        person.see("What happened")
        see_that_it_fits(browser, 390, "a dead letter")
        assert person.read_errors() == []


def see_that_it_fits(browser: webdriver.Chrome, width: int, what: str) -> None:
    """Wait until the page is laid out for this width, and no wider."""
    script = "return document.documentElement.scrollWidth"
    wait_until(lambda: browser.execute_script(script) <= width, what=f"{what} at {width} px")


def test_read_only_offers_nothing_that_it_refuses(
    embedded_stage: Stage, browser: webdriver.Chrome
) -> None:
    """No button to publish, replay or delete."""
    with embedded_stage.worker(), run_dashboard(embedded_stage, "--read-only") as url:
        person = Person(browser, url)
        message_id = embedded_stage.publish(b'{"id": 1, "fail": true}')
        person.go("")
        person.press(".attention .row-link", "RuntimeError")
        person.press("td .row-link", message_id)
        person.see("What happened")
        assert person.read_all("main .button") == []
        assert not browser.find_elements(By.CSS_SELECTOR, ".publish")


def test_300_handlers_are_shown_at_once(embedded_stage: Stage, browser: webdriver.Chrome) -> None:
    """All rows are there; a refresh changes nothing of the page that did not change.

    What is focused stays so when something above it goes, and what a button asks until it is
    answered.
    """
    (embedded_stage.folder / "modules" / "many.py").write_text(MANY)
    with run_dashboard(embedded_stage) as url:
        person = Person(browser, url)
        person.go("")
        person.see("custom.topic-299.many")
        kept = browser.find_element(By.CSS_SELECTOR, "tbody tr:nth-child(200)")
        changes = browser.execute_script("""
            const observer = new MutationObserver(() => {});
            const all = { subtree: true, childList: true, attributes: true, characterData: true };
            observer.observe(document.body, all);
            for (let i = 0; i < 10; i++) dispatchEvent(new Event("hashchange"));
            return observer.takeRecords().length;
        """)

        assert changes <= 10  # an age may be a second older each time
        assert kept.is_displayed()
        assert browser.execute_async_script(FOCUS_SCRIPT) == "INPUT"
        assert browser.execute_async_script(SURE_SCRIPT) == [["Go?", 0], ["Go", 1]]


def test_what_is_aborted_is_no_answer(embedded_stage: Stage, browser: webdriver.Chrome) -> None:
    """A view that is asked for again forgets what it was asked for before, wherever that was."""
    with run_dashboard(embedded_stage) as url:
        person = Person(browser, url)
        person.go("")
        person.see(QUEUE)

        assert browser.execute_async_script(ABORT_SCRIPT) == ["no answer"]


def test_sigterm_ends_it_in_order(embedded_stage: Stage) -> None:
    """What it has created for the workers' answers is gone, and no page has a link any more."""
    with run_dashboard(embedded_stage) as url:
        with urllib.request.urlopen(f"{url}api/workers", timeout=PATIENCE) as answer:
            assert json.load(answer)["workers"] == []
        record = embedded_stage.data_dir / "dashboard.json"
        assert json.loads(record.read_text())["url"] == url

    assert not record.exists()
    where = f"http://{embedded_stage.address}/v1/projects/{embedded_stage.project}/subscriptions"
    with urllib.request.urlopen(where, timeout=PATIENCE) as answer:
        left = [each["name"] for each in json.load(answer).get("subscriptions", ())]
    assert [name for name in left if "control" in name] == []
