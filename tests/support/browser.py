"""Debian's Chromium without a window."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.common.exceptions import JavascriptException

from tests.support.ports import free_port

__all__ = ["SCREENS", "open_browser", "page_text", "take_screen"]

#: Widths in pixels, of a desk and a phone, each with both colour schemes.
SCREENS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]


@contextmanager
def open_browser() -> Iterator[webdriver.Chrome]:
    """Start a browser for the duration; skip the test where there is none."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    service = webdriver.ChromeService(driver, port=free_port())
    started = webdriver.Chrome(options=options, service=service)
    try:
        yield started
    finally:
        started.quit()


def page_text(browser: webdriver.Chrome) -> str:
    """Return what the page shows, whether or not it is just being replaced."""
    try:
        text = browser.execute_script("return document.body ? document.body.innerText : ''")
    except JavascriptException:  # it was replaced just then
        return ""
    return str(text)


def take_screen(browser: webdriver.Chrome, width: int, scheme: str) -> None:
    """Have the browser show what a screen of this width shows to who wants light or dark."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
