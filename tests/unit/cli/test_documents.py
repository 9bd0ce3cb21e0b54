"""`convotic asyncapi`, `convotic routes --list`, and what `convotic handlers --json` adds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from convotic_celery.cli import main


@pytest.fixture(autouse=True)
def sample_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample module alone, wherever the tests run."""
    monkeypatch.setenv("CONVOTIC_MODULES", "convotic_order_processor")


def test_asyncapi_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard output."""
    assert main(["asyncapi"]) == 0

    document = json.loads(capsys.readouterr().out)
    assert "custom.orders.new" in document["channels"]


def test_asyncapi_page_goes_to_a_file(tmp_path: Path) -> None:
    """One file that a browser opens."""
    page = tmp_path / "handlers.html"

    assert main(["asyncapi", "--html", "-o", str(page)]) == 0

    assert page.read_text().startswith("<!doctype html>")


def test_routes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """With where they are written."""
    assert main(["routes", "--list"]) == 0

    _, line = capsys.readouterr().out.splitlines()
    assert line.split()[:3] == ["POST", "/orders", "order-processor"]


def test_openapi_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """For generators of clients."""
    assert main(["routes", "--openapi"]) == 0

    assert json.loads(capsys.readouterr().out)["openapi"].startswith("3.1.")


def test_handlers_have_their_payloads_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """Complete in itself."""
    assert main(["handlers", "--json"]) == 0

    (handler,) = json.loads(capsys.readouterr().out)
    assert "customer_id" in handler["payload_schema"]["required"]


def test_worker_and_help_import_no_web_framework() -> None:
    """A worker starts without FastAPI, uvicorn and the documents."""
    code = (
        "import sys, convotic_celery.celery, convotic_celery.runtime.worker.worker\n"
        "import convotic_celery.cli\n"
        "print([n for n in ('fastapi', 'starlette', 'uvicorn', 'convotic_celery.documents',"
        " 'convotic_celery.routes') if n in sys.modules])"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "[]"
