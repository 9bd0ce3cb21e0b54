"""The pages of docs/ show code that works; docs/modules.md has tests of its own."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from convotic_celery import pubsub
from convotic_celery.routes.application import build_openapi
from convotic_celery.sdk import ConvoticModule, RouteRequest

_runs = itertools.count(1)
DOCS = Path(__file__).resolve().parents[2] / "docs"


def run_blocks(name: str) -> tuple[str, dict[str, Any]]:
    """Run a page's blocks from top to bottom, as one file.

    Each time a module of another name: a shared task is registered in every app of the process, for
    good, and a second one of its name is an error there.
    """
    text = (DOCS / name).read_text()
    scope: dict[str, Any] = {"__name__": f"guide_{next(_runs)}"}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, name, "exec", dont_inherit=True), scope)
    return text, scope


def test_schedules_register() -> None:
    """A handler's and a topic's."""
    _, scope = run_blocks("scheduling.md")

    schedules = scope["module"].collect().schedules
    assert [(s.key, s.queue) for s in schedules] == [
        ("shop.nightly", "schedule.nightly.shop"),
        ("shop.custom.reports.due", None),
    ]


def test_routes_register() -> None:
    """With their types; each attribute of a request is told."""
    text, scope = run_blocks("routes.md")

    module = scope["module"]
    assert isinstance(module, ConvoticModule)
    routes = module.collect().routes
    assert [route.name for route in routes] == [
        "POST /orders",
        "GET /customers/{customer_id}/orders",
        "GET /orders/{order_id}",
    ]
    assert "/orders" in build_openapi(routes)["paths"]
    assert routes[0].body_type is scope["Order"]
    assert [name for name in RouteRequest.__dataclass_fields__ if f"`{name}`" not in text] == []


def test_application_of_the_page_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its middleware is Starlette's."""
    monkeypatch.chdir(tmp_path)
    _, scope = run_blocks("routes.md")

    assert scope["create"]() is not None


def test_idempotency_registers() -> None:
    """Its handler has the options that the page shows."""
    _, scope = run_blocks("idempotency.md")

    (handler,) = scope["module"].collect_handlers()
    assert (handler.options.deduplicate, handler.options.deduplicate_window) == ("data.id", 604_800)


def test_workflows_register() -> None:
    """The workflow is a handler beside the one that starts it."""
    _, scope = run_blocks("workflows.md")

    handlers = scope["module"].collect_handlers()
    assert [handler.topic for handler in handlers] == [
        "workflow.fulfil-order",
        "custom.orders.new",
        "workflow.pack-order",
    ]
    assert (handlers[0].options.max_retries, handlers[0].options.ack_deadline) == (3, 60)


def test_publishing_names_every_function() -> None:
    """The façade's, all of them."""
    text, scope = run_blocks("publishing.md")

    assert scope["place_orders"]
    assert [name for name in pubsub.__all__ if f"pubsub.{name}" not in text] == []
