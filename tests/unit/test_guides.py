"""The pages of docs/ show code that works; docs/modules.md has tests of its own."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
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
    """With their types; each attribute of a request is documented."""
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


def read_texts(folder: Path) -> Iterator[str]:
    """Yield the texts in a folder's code, with … for what is filled in."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    each.value if isinstance(each, ast.Constant) else "…" for each in node.values
                ]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%[-0-9.]*[a-z]", "…", node.value)


def test_troubleshooting_quotes_messages_that_exist() -> None:
    """All but Celery's and Flower's: a reader searches for what is printed."""
    own = (DOCS / "troubleshooting.md").read_text().partition("## From Celery")[0]
    rows = re.findall(r"^\| (?:`\w+`: )?`(.+?)`", own, re.MULTILINE)
    texts = "\n".join(
        text
        for name in ("convotic_celery", "transports")
        for text in read_texts(DOCS.parent / name)
    )

    parts = [part.strip() for row in rows for part in row.split("…")]
    assert [part for part in parts if len(part) > 2 and part not in texts] == []
