"""The emulator's page, as a person uses it in a browser."""

from __future__ import annotations

from pathlib import Path

import grpc
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from convotic_emulator import daemon
from tests.conformance.broker import OURS, Broker
from tests.support.browser import open_browser
from tests.support.waiting import wait_until


def rows_of(browser: webdriver.Chrome) -> list[list[str]]:
    """Return the cells of the first table, all of one moment: the page may just be replaced."""
    script = """
        const rows = [...document.querySelectorAll("table:first-of-type tbody tr")];
        const read = (cell) => cell.innerText.trim();
        return rows.map((row) => [...row.querySelectorAll("td")].map(read));
    """
    return list(browser.execute_script(script))


def test_a_person_publishes_and_reads_a_message(data_dir: Path) -> None:
    """Counts of a subscription, its messages, a form that publishes; markup in data is text."""
    broker = Broker(OURS, grpc.insecure_channel(daemon.ensure_running(data_dir)), "p")
    topic = broker.topic("orders")
    # It stays outstanding, however long the browser takes to start.
    subscription = broker.subscription(topic, "orders.sub", ack_deadline_seconds=600)
    broker.publish(topic, b"first", b"second")
    broker.pull(subscription, limit=1)
    info = daemon.status(data_dir)
    assert info is not None

    with open_browser() as browser:
        browser.get(info["page"])
        [row] = rows_of(browser)[:1]
        assert row[:5] == [subscription, topic, "1", "1", "0"]
        assert row[5]

        Select(browser.find_element(By.NAME, "topic")).select_by_visible_text(topic)
        browser.find_element(By.NAME, "data").send_keys("<b>third</b> ä")
        browser.find_element(By.NAME, "attributes").send_keys("kind=a=b")
        browser.find_element(By.TAG_NAME, "button").click()
        wait_until(lambda: browser.find_elements(By.CSS_SELECTOR, "[role=status]"))
        assert rows_of(browser)[0][2:4] == ["2", "1"]

        browser.find_element(By.LINK_TEXT, subscription).click()
        wait_until(lambda: len(rows_of(browser)) == 3)
        third = rows_of(browser)[2]
        assert third[2] == "available"
        assert third[5:] == ["kind=a=b", "<b>third</b> ä"]
        assert {row[2] for row in rows_of(browser)} == {"available", "outstanding"}
        severe = [e for e in browser.get_log("browser") if "favicon" not in e["message"]]  # type: ignore[no-untyped-call]  # selenium's
        assert severe == []
    broker.close()
