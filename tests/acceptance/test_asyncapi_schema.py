"""The AsyncAPI document is one by AsyncAPI's own schema, as its authors publish it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from convotic_celery import ConvoticContext, ConvoticModule, WorkerMessage
from convotic_celery.documents.asyncapi import build_asyncapi
from convotic_order_processor import module as order_processor
from tests.support.waiting import PATIENCE

SCRIPT = Path(__file__).parent / "node" / "asyncapi.js"


class Branch(BaseModel):
    """A payload that names itself."""

    name: str
    branches: list[Branch] = []


class Cart(TypedDict):
    lines: dict[str, int]


def make_module() -> ConvoticModule:
    """Return a module with every kind of payload and many options."""
    module = ConvoticModule(name="kinds", version="2.1")

    @module.worker("kinds.tree", retry_on=ValueError, deduplicate="data.name", rate_limit="1/s")
    async def tree(message: WorkerMessage[Branch], ctx: ConvoticContext) -> None: ...

    @module.worker("kinds.tree", name="again", cloud_events="require", accept_gzip=True)
    async def again(message: WorkerMessage[list[Branch] | None], ctx: ConvoticContext) -> None: ...

    @module.worker("kinds.cart", enable_message_ordering=True, filter='attributes.a = "b"')
    async def cart(message: WorkerMessage[Cart], ctx: ConvoticContext) -> None: ...

    @module.worker("kinds.any")
    async def anything(message: WorkerMessage, ctx: ConvoticContext) -> None: ...

    async def step(run: Any, ctx: ConvoticContext) -> None: ...

    module.workflow("steps", steps=[step])
    return module


def find_errors(node_folder: Path, document: object) -> list[Any]:
    done = subprocess.run(
        ["node", str(SCRIPT)],
        env=os.environ | {"NODE_PATH": str(node_folder / "node_modules")},
        input=json.dumps(document),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    errors: list[Any] = json.loads(done.stdout)
    return errors


@pytest.mark.parametrize("module", [order_processor, make_module()], ids=lambda m: m.name)
def test_the_document_is_valid(node_folder: Path, module: ConvoticModule) -> None:
    """For the sample module, and for one of each kind; a fault is found."""
    document: Any = build_asyncapi(module.collect_handlers())

    assert find_errors(node_folder, document) == []
    next(iter(document["operations"].values()))["action"] = "receives"
    assert find_errors(node_folder, document)
