"""Take the screenshots of README and docs from the real thing: servers, a worker, the dashboard.

Usage: ``python scripts/screenshots.py``. Needs Debian's ``chromium`` and ``chromium-driver``. The
handlers are in ``scripts/showcase``; what is shown has really happened to their messages.
"""

# ruff: noqa: INP001 - a program, not a package

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By

from convotic_celery.app import ConvoticApp, create_app
from convotic_celery.cli.demo.child import Child
from convotic_celery.embedded import store
from convotic_celery.settings import Settings
from convotic_emulator import daemon

ROOT = Path(__file__).resolve().parent
ASSETS = ROOT.parent / "docs" / "assets"
PORT = 8199
URL = f"http://127.0.0.1:{PORT}/"
SIZE = (1280, 860)
_PATIENCE_SECONDS = 60.0

#: File, page and colours. ENTRY and RUN stand for a dead letter and a failed run.
SHOTS = (
    ("dashboard-light", "", "light"),
    ("dashboard-dark", "", "dark"),
    ("dashboard-dead-letter", "dead-letters/ENTRY", "light"),
    ("dashboard-workflow", "workflows/RUN", "light"),
)


def main() -> int:
    """Set the scene, take the pictures, and clear up."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="shop-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        data_dir = folder / "shop" / ".convotic"
        settings = Settings(data_dir=data_dir, modules_dir=ROOT / "showcase")
        stack.callback(store.stop, data_dir)
        stack.callback(daemon.stop, data_dir)
        environment = os.environ | {
            "CONVOTIC_DATA_DIR": str(data_dir),
            "CONVOTIC_MODULES_DIR": str(settings.modules_dir),
        }
        for name, arguments in (
            ("worker", ["celery", "-A", "convotic_celery", "worker"]),
            ("dashboard", ["convotic_celery.cli", "dashboard", "--port", str(PORT)]),
        ):
            child = Child(arguments, environment=environment, log=folder / f"{name}.log")
            stack.enter_context(child)
        wait(lambda: len(read("workers")["workers"] or ()) == 1, "the worker")
        app = create_app(settings)
        play(app)
        wait(lambda: read("badges").get("dead-letters", 0) >= _DEAD_LETTERS, "dead letters")
        wait(lambda: read("workflows?status=completed")["items"], "workflows")
        wait(lambda: sum_succeeded() >= _SUCCESSES, "the workers' figures")
        take_all(stack.enter_context(open_browser()))
        app.open_session().close()
    return 0


#: What fails for certain: payments above the limit, orders that are no orders, white tea, cards.
_DEAD_LETTERS = 20
_SUCCESSES = 400


def sum_succeeded() -> int:
    """Return what the worker says."""
    rows = read("handlers").get("handlers", ())
    return sum((row["outcomes"] or {}).get("succeeded", 0) for row in rows)


def play(app: ConvoticApp) -> None:
    """Publish what a shop has in a minute."""
    chance = random.Random(4)  # noqa: S311 - the same pictures each time
    pubsub = app.services.sync_pubsub()

    def order(number: int) -> dict[str, Any]:
        sku = chance.choices(["tea-green", "tea-black", "tea-white", "cup"], [6, 6, 1, 3])[0]
        data = {
            "id": f"A-{1000 + number}",
            "customer": f"customer-{number}@example.com",
            "placed_at": "2026-11-27T09:41:00Z",
            "lines": [{"sku": sku, "quantity": 2}],
            "total": 23.8,
        }
        return {
            "data": data,
            "attributes": {"source": "web", "region": chance.choice(["eu", "us"])},
        }

    amounts = [chance.randint(1, 1000) for _ in range(60)]
    pubsub.publish_many("custom.orders.new", [order(number) for number in range(180)])
    pubsub.publish_many("custom.orders.new", [{"data": {"id": number}} for number in range(3)])
    pubsub.publish_many("custom.payments.captured", [{"data": {"amount": a}} for a in amounts])
    pubsub.publish_many("custom.invoices.render", [{"data": {"n": n}} for n in range(9)])
    pubsub.publish_many("custom.customers.changed", [{"data": {"n": n}} for n in range(45)])
    for delay in (3_600, 7_200, 172_800):
        pubsub.publish("custom.newsletter.send", data={"template": "winter"}, delay=delay)
    workflows = app.services.sync_workflows(pubsub)
    for number in range(8):
        workflows.start("fulfil-order", {"order": f"A-{1000 + number}"})


def take_all(browser: webdriver.Chrome) -> None:
    """Take every picture of :data:`SHOTS`."""
    group = next(g for g in read("dead-letters/groups")["items"] if "OutOfStock" in g["error_type"])
    known = {
        "ENTRY": read(f"dead-letters?group={group['id']}")["items"][0]["id"],
        "RUN": read("workflows?status=failed")["items"][0]["id"],
    }
    for name, page, scheme in SHOTS:
        path = page
        for word, value in known.items():
            path = path.replace(word, value)
        size = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        colours = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": colours})
        browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        browser.get("about:blank")
        browser.get(f"{URL}#/{path}")
        wait(lambda: browser.find_elements(By.CSS_SELECTOR, "main h1, main .empty"), page)
        browser.save_screenshot(str(ASSETS / f"{name}.png"))


def open_browser() -> webdriver.Chrome:
    """Start Chromium without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or sys.exit("needs chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    return webdriver.Chrome(options=options, service=service)


def read(path: str) -> Any:
    """Return what the dashboard answers; nothing while it does not."""
    try:
        with urllib.request.urlopen(f"{URL}api/{path}", timeout=10) as answer:  # noqa: S310 - our own
            return json.load(answer)
    except OSError:
        return {"workers": None}


def wait(condition: Any, what: str) -> None:
    """Wait until something is so."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > until:
            sys.exit(f"waited in vain for {what or 'the page'}")
        threading.Event().wait(0.2)


if __name__ == "__main__":
    sys.exit(main())
