"""`convotic handlers`, and `convotic publish` as far as it goes without a broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convotic_celery.cli import main

pytestmark = pytest.mark.usefixtures("sample_module")


@pytest.fixture
def sample_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample module alone, wherever the tests run."""
    monkeypatch.setenv("CONVOTIC_MODULES", "convotic_order_processor")


def test_it_lists_topic_queue_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    """One line a handler, with whole names."""
    assert main(["handlers"]) == 0

    _, line = capsys.readouterr().out.splitlines()
    assert line.split()[:2] == ["custom.orders.new", "custom.orders.new.order-processor"]
    assert "handler.py" in line


def test_json_has_all_names_and_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--json` lists dead-letter topic and options too, overrides applied."""
    monkeypatch.setenv("CONVOTIC_HANDLER_OPTIONS", '{"custom.orders.new": {"ack_deadline": 12}}')

    assert main(["handlers", "--json"]) == 0

    (handler,) = json.loads(capsys.readouterr().out)
    assert handler["dead_letter_topic"] == "custom.orders.new.order-processor.dead-letter"
    assert handler["options"]["ack_deadline"] == 12


def test_without_handlers_it_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In an empty folder the command names the two ways to a module."""
    monkeypatch.delenv("CONVOTIC_MODULES")
    monkeypatch.chdir(tmp_path)

    assert main(["handlers"]) == 0

    assert "CONVOTIC_MODULES" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["{"], "not JSON"), (["{}", "--attribute", "no-value"], "KEY=VALUE")],
)
def test_publish_refuses_before_it_connects(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no JSON, or no attribute, is refused on the command line."""
    assert main(["publish", "custom.orders.new", *arguments]) == 2

    assert complaint in capsys.readouterr().err
