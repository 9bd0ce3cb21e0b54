"""Every verb for dead letters, by the buttons of Flower's tab and of the dashboard."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import alert_is_present
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from convotic_celery.app import ConvoticApp
from convotic_celery.dead_letters import Match, State
from convotic_celery.runtime.delivery.payload import task_id_of
from tests.acceptance.stage import Stage
from tests.acceptance.test_dashboard import Person, run_dashboard
from tests.acceptance.test_dead_letters import BILLING, MAIL, STOCK, fail_orders, open_app, stage
from tests.acceptance.test_flower import read_json, run_flower
from tests.acceptance.test_flower_dead_letters import click, save
from tests.support.browser import open_browser, page_text
from tests.support.waiting import PATIENCE, wait_until

__all__ = ["stage"]


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    """Debian's Chromium without a window."""
    with open_browser() as started:
        started.set_window_size(1400, 1000)
        yield started


class Desk:
    """The dead letters of one handler, by the ids of their orders."""

    def __init__(self, app: ConvoticApp, handler: str) -> None:
        self.app = app
        self.handler = handler
        found = app.dead_letters.export(Match(handler=handler))
        self.entries = {json.loads(dead.data or b"")["id"]: dead.id for dead in found}

    def wait_for(self, state: State, *orders: int) -> None:
        """Wait until they are in a state."""
        read = self.app.dead_letters.show
        wait_until(
            lambda: {read(self.entries[order]).state for order in orders} == {state},
            timeout=PATIENCE,
            what=f"orders {orders} {state}",
        )

    def abandon(self, order: int) -> str:
        """Begin a replay that nobody works on, as after a kill; return its job."""
        match = Match(ids=(self.entries[order],))
        job = self.app.dead_letters.begin("replay", match, by="ada").id
        wait_until(lambda: self.app.dead_letters.job(job).is_abandoned, timeout=PATIENCE)
        return job

    def lose(self, order: int) -> None:
        """Acknowledge a message by hand."""
        deployment = self.app.dead_letters._deployment
        message_id = self.app.dead_letters.show(self.entries[order]).dead_letter_id
        name = deployment.dead_letter_subscription(self.handler)

        def acknowledge() -> bool:
            with deployment.session().resources.inspect(name) as inspection:
                seen = inspection.pull(1000)
                ids = [s.ack_id for s in seen if s.received.message_id == message_id]
                inspection.acknowledge(ids)
            return bool(ids)

        wait_until(acknowledge, what="the message, which another may have looked at just then")


def test_every_verb_has_a_button(stage: Stage, browser: webdriver.Chrome) -> None:
    """Archive, restore, redirect, purge, sync, resume, cancel, and the original again."""
    with stage.worker(), open_app(stage) as app:
        fail_orders(stage, app, 6)
        (stage.folder / "mended").touch()
        with run_flower(stage) as url:
            look_at_tasks(app, browser, url)
            use_flower(stage, browser, url, Desk(app, BILLING))
        with run_dashboard(stage) as url:
            use_dashboard(stage, Person(browser, url), Desk(app, MAIL))
        wait_until(lambda: [run["data"] for run in stage.read_runs("mail")] == [{"id": 5}])


def look_at_tasks(app: ConvoticApp, browser: webdriver.Chrome, url: str) -> None:
    """Ask this Flower, which has seen no run, for a task that ran and for one that never was."""
    outcomes = wait_until(lambda: app.last_outcomes.last(BILLING), timeout=PATIENCE)
    browser.get(f"{url}/task/{outcomes[0].task_id}")
    page = page_text(browser)
    assert "Flower has not seen this task" in page
    assert all(text in page for text in (BILLING, "FAILURE", "dead_lettered", "Error"))
    save(browser, "task-of-the-store")
    nobody = task_id_of(BILLING, "12345")
    browser.get(f"{url}/task/{nobody}")
    assert "unknown" in page_text(browser)
    save(browser, "task-unknown")
    assert read_json(f"{url}/api/task/result/{nobody}")["state"] == "unknown"


def use_flower(stage: Stage, browser: webdriver.Chrome, url: str, desk: Desk) -> None:
    """Press the buttons of Flower's tab."""
    letters = f"{url}/dead-letters"

    def show(order: int) -> None:
        browser.get(f"{letters}/show/{desk.entries[order]}")

    show(0)
    click(browser, "#archive")
    desk.wait_for("archived", 0)
    show(0)
    click(browser, "#restore")
    desk.wait_for("open", 0)

    show(1)
    Select(browser.find_element(By.NAME, "to")).select_by_visible_text(STOCK)
    click(browser, "#redirect")
    wait_until(lambda: "1 of 1" in page_text(browser))
    save(browser, "redirect")
    wait_until(lambda: [run["data"] for run in stage.read_runs("stock")] == [{"id": 1}])

    show(2)
    click(browser, "#purge")
    WebDriverWait(browser, PATIENCE).until(alert_is_present()).accept()
    desk.wait_for("purged", 2)

    browser.get(f"{letters}?handler={BILLING}&error=KeyError")
    click(browser, ".archive-group")
    desk.wait_for("archived", 3, 5)
    browser.get(f"{letters}?handler={BILLING}&error=KeyError&state=archived")
    save(browser, "archived")
    click(browser, ".restore-group")
    desk.wait_for("open", 3, 5)

    desk.lose(4)
    browser.get(letters)
    click(browser, "#sync")
    desk.wait_for("missing", 4)
    browser.get(f"{letters}?state=missing")
    assert desk.entries[4] in page_text(browser)

    browser.get(f"{letters}/job/{desk.abandon(3)}")
    assert "its process is gone" in page_text(browser)
    save(browser, "interrupted")
    click(browser, "#resume")
    desk.wait_for("replayed", 3)
    browser.get(f"{letters}/job/{desk.abandon(5)}")
    click(browser, "#cancel")
    wait_until(lambda: "cancelled" in page_text(browser))
    desk.wait_for("open", 5)

    desk.app.dead_letters.edit(desk.entries[5], b'{"id": 55}', by="ada")
    show(5)
    click(browser, "#original")
    wait_until(lambda: desk.app.dead_letters.show(desk.entries[5]).edited is None)
    wait_until(lambda: len(stage.read_runs("billing")) == 1, timeout=PATIENCE)
    expected = {"archive", "restore", "redirect", "purge", "sync", "resume", "cancel", "edit"}

    def logged() -> set[str]:  # a line is written behind what it is about
        return {line["action"] for line in desk.app.dead_letters.log() if line["by"] == "Flower"}

    wait_until(lambda: logged() == expected, what=f"the lines of {expected}")


def use_dashboard(stage: Stage, person: Person, desk: Desk) -> None:
    """Press the buttons of the dashboard."""
    person.read_errors()  # Flower's 404 of the unknown task

    def show(order: int) -> None:
        person.go(f"dead-letters/{desk.entries[order]}")

    show(0)
    person.press("button", "Archive it")
    desk.wait_for("archived", 0)
    person.press("button", "Restore it")
    desk.wait_for("open", 0)

    show(3)  # not 1, of which stock has processed the same message
    person.press("button", "Redirect")
    Select(person.find(".bar select")).select_by_visible_text(STOCK)
    person.press(".bar button", "Redirect")
    desk.wait_for("replayed", 3)
    wait_until(lambda: [run["data"]["id"] for run in stage.read_runs("stock")] == [1, 3])

    show(2)
    person.press("button", "Delete it", sure="Delete it for good?")
    desk.wait_for("purged", 2)

    group = desk.app.dead_letters.show(desk.entries[5]).group
    person.go(f"dead-letters/group/{group}")
    person.press("button", "Archive all 2")
    desk.wait_for("archived", 1, 5)
    person.press(".chip", "archived")
    person.press("button", "Restore all 2")
    desk.wait_for("open", 1, 5)

    desk.lose(4)
    person.go("dead-letters")
    person.press("button", "Sync")
    person.see("1 missing")
    desk.wait_for("missing", 4)

    desk.abandon(0)
    person.go("dead-letters")
    save(person.browser, "dashboard-interrupted")
    person.press("button", "Cancel")
    wait_until(lambda: desk.app.dead_letters.jobs()[0].state == "cancelled")
    desk.abandon(5)
    person.go("dead-letters")
    person.press("button", "Resume")
    desk.wait_for("replayed", 5)
    assert person.read_errors() == []
