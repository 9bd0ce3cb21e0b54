"""``convotic routes`` as a process: the sample module's order is published, then answered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from grpc import insecure_channel
from selenium.webdriver.common.by import By

from convotic_emulator import daemon
from tests.support.browser import SCREENS, open_browser, page_text, take_screen
from tests.support.orphans import end_emulator
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE, wait_until

SUBSCRIPTION = "projects/convotic-local/subscriptions/custom.orders.new.order-processor"


@pytest.fixture
def server(data_dir: Path) -> Iterator[str]:
    """The address of a server that the command line started."""
    port = free_port()
    environment = {
        **os.environ,
        "CONVOTIC_DATA_DIR": str(data_dir),
        "CONVOTIC_MODULES": "convotic_order_processor",
        "CONVOTIC_LOG_FORMAT": "json",
    }
    with (data_dir / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "convotic_celery.cli", "routes", "--port", str(port)],
            env=environment,
            stderr=log,
            stdout=log,
        )
    url = f"http://127.0.0.1:{port}"
    client = httpx.Client()  # one: each makes a TLS context, which takes a while

    def answers() -> bool:
        assert process.poll() is None, (data_dir / "server.log").read_text()
        try:
            return client.get(f"{url}/openapi.json").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, what="the server answers")
        yield url
    finally:
        client.close()
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        end_emulator(data_dir)


def test_order_is_published_before_it_is_answered(server: str, data_dir: Path) -> None:
    """No worker has run yet: the order waits in the handler's subscription."""
    order = {"id": 1, "customer_id": "c-1", "total": 29.33}

    response = httpx.post(f"{server}/orders", json=order, timeout=PATIENCE)

    assert response.status_code == 202, response.text
    channel = insecure_channel(daemon.ensure_running(data_dir))
    with SubscriberClient(transport=SubscriberGrpcTransport(channel=channel)) as client:
        (received,) = client.pull(subscription=SUBSCRIPTION, max_messages=5).received_messages
    assert response.json() == {
        "message": "Order queued for processing",
        "message_id": received.message.message_id,
    }
    assert b'"total":"29.33"' in received.message.data
    assert dict(received.message.attributes) == {"source": "api"}


def test_wrong_order_is_told_by_the_server(server: str) -> None:
    """Problem details through a real server, and HEAD without a body."""
    response = httpx.post(f"{server}/orders", json={"id": 1}, timeout=PATIENCE)
    head = httpx.head(f"{server}/docs", timeout=PATIENCE)

    assert response.status_code == 422
    assert response.json()["errors"] == [{"pointer": "#/customer_id", "detail": "Field required"}]
    assert (head.status_code, head.content) == (200, b"")


def test_its_documents_can_be_tried_on_every_screen(server: str) -> None:
    """Light and dark, nothing to be scrolled sideways; a request is sent from its example."""
    with open_browser() as browser:
        for width, scheme in SCREENS:
            take_screen(browser, width, scheme)
            browser.get(server)
            wait_until(lambda: browser.find_elements(By.CSS_SELECTOR, ".opblock"), what="routes")
            wide = browser.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width
            colour = browser.execute_script(
                "return getComputedStyle(document.querySelector('.swagger-ui')).color"
            )
            assert ("228, 230, 230" in colour) == (scheme == "dark"), colour

        browser.find_element(By.CSS_SELECTOR, ".opblock-summary-control").click()
        wait_until(lambda: "customer_id" in browser.page_source, what="the example")
        browser.find_element(By.CSS_SELECTOR, ".execute").click()
        # "Order queued" alone stands in the description of the answer, too.
        wait_until(lambda: "curl" in page_text(browser), what="the request as a command")
        wait_until(lambda: "Order queued" in page_text(browser), what="the answer")
        assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]  # selenium's
