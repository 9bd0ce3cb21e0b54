"""Debian's Chromium without a window."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver

__all__ = ["open_browser", "page_text"]


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
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield started
    finally:
        started.quit()


def page_text(browser: webdriver.Chrome) -> str:
    """Return what the page shows, whether or not it is just being replaced."""
    return str(browser.execute_script("return document.body ? document.body.innerText : ''"))
