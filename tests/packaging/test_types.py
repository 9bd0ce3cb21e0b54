"""Types as a project sees them that has the wheel and nothing of the checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SHOP = """
from collections.abc import Mapping
from typing import assert_type

from pydantic import BaseModel, JsonValue

from convotic_celery import (
    Contact,
    ConvoticContext,
    ConvoticModule,
    RouteRequest,
    RouteResponse,
    SyncConvoticContext,
    WorkerMessage,
    pubsub,
)
from convotic_celery.testing import convotic_app


class Order(BaseModel):
    id: int


module = ConvoticModule(name="shop", version="1.0.0")


@module.worker("custom.orders.new", max_retries=3, ack_deadline=60)
async def process_order(message: WorkerMessage[Order], ctx: ConvoticContext) -> None:
    assert_type(message.data, Order)
    assert_type(message.attributes, Mapping[str, str])
    assert_type(await ctx.contacts.find_by_external_id("c-1"), Contact | None)
    assert_type(await ctx.storage.get("key", Order), Order | None)
    assert_type(await ctx.pubsub.publish("custom.orders.done", data=message.data), str)


@module.worker("custom.orders.plain")
def process_plainly(message: WorkerMessage[list[Order]], ctx: SyncConvoticContext) -> None:
    assert_type(message.data, list[Order])
    assert_type(ctx.storage.get("key"), JsonValue)
    assert_type(pubsub.publish("custom.orders.done", data=1), str)


@module.route("POST", "/orders", status=202)
async def create_order(request: RouteRequest[Order], ctx: ConvoticContext) -> RouteResponse[Order]:
    assert_type(request.body, Order)
    return RouteResponse(request.body)


def again(order: Order) -> None:
    assert_type(process_order.delay(order, attributes={"source": "test"}), str)


async def test_an_order() -> None:
    async with convotic_app(module) as app:
        assert_type(await app.publish("custom.orders.new", data=Order(id=1)), str)
        assert_type([run.outcome for run in await app.drain()], list[str])
"""

#: Lines 4 to 6, 8 and 9 are mistakes: an option's name, an option's type, a handler's parameters,
#: its context, the data of a call.
MISTAKES = """
from convotic_celery import ConvoticContext, ConvoticModule, WorkerMessage
module = ConvoticModule(name="shop", version="1.0.0")
async def handle(message: WorkerMessage[int], ctx: ConvoticContext) -> None: ...
module.worker("custom.orders.new", max_retires=3)
module.worker("custom.orders.new", ack_deadline="60")
module.worker("custom.orders.new")(lambda order: None)
async def other(message: WorkerMessage[int], ctx: int) -> None: ...
module.worker("custom.orders.new")(other)
module.worker("custom.orders.new")(handle).delay("no number")
""".lstrip()


def check(environment: Path, folder: Path, checker: str, code: str) -> str:
    """Run a type checker on a project of one file; return what it says."""
    (folder / "shop.py").write_text(code)
    (folder / "pyproject.toml").write_text(
        '[tool.mypy]\nstrict = true\n[tool.basedpyright]\ntypeCheckingMode = "strict"\n'
    )
    python = str(environment / "bin" / "python")
    commands = {
        "mypy": ["--python-executable", python, "--cache-dir", str(folder.parent / "mypy")],
        "basedpyright": ["--pythonpath", python],
    }
    command = [sys.executable, "-m", checker, *commands[checker], "shop.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_types_reach_a_project_outside_the_checkout(
    environment: Path, tmp_path_factory: pytest.TempPathFactory, checker: str
) -> None:
    """`message.data` is an `Order` to strict checkers, and mistakes are found where they are."""
    folder = tmp_path_factory.mktemp("project", numbered=True)

    right = check(environment, folder, checker, SHOP)
    wrong = check(environment, folder, checker, MISTAKES)

    assert ("Success" if checker == "mypy" else "0 errors") in right, right
    found = {number for number in range(1, 10) if f"shop.py:{number}:" in wrong}
    assert found == {4, 5, 6, 8, 9}, wrong
