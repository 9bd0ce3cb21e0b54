"""A Flower that has changed under us works without our additions, and says so once."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from convotic_celery.flower.loader import FlowerLoader


def test_the_additions_fit_the_flower_that_is_pinned(caplog: pytest.LogCaptureFixture) -> None:
    """Each of them has its place in Flower's templates."""
    from flower.urls import settings  # type: ignore[import-untyped]  # noqa: PLC0415

    loader = FlowerLoader(settings["template_path"])

    assert caplog.text == ""
    assert b"Dead letters" in loader.load("dead_letters.html").code.encode()


def test_other_templates_are_left_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning names them; they are shown without what we add."""
    for name in ("navbar.html", "task.html", "broker.html"):
        (tmp_path / name).write_text(f"<p>a new {name}</p>")

    with caplog.at_level(logging.WARNING):
        loader = FlowerLoader(str(tmp_path))

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "navbar.html, task.html, broker.html" in caplog.text
    assert loader.load("navbar.html").generate() == b"<p>a new navbar.html</p>"
