"""A dashboard on embedded servers of its own, asked as its page asks it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest_asyncio

from convotic_celery.app import ConvoticApp, create_app
from convotic_celery.dashboard import create_dashboard
from convotic_celery.settings import Settings

MODULE = '''
from pydantic import BaseModel

from convotic_celery import ConvoticContext, ConvoticModule, WorkerMessage, WorkflowRun

module = ConvoticModule(name="shop", version="1.2.3")


class Order(BaseModel):
    id: int
    city: str


@module.worker("custom.orders.new", concurrency=3)
async def process_order(message: WorkerMessage[Order], ctx: ConvoticContext) -> None:
    """Process an order."""


@module.worker("custom.orders.new", name="index")
async def index_order(message: WorkerMessage, ctx: ConvoticContext) -> None: ...


async def reserve(run: WorkflowRun, ctx: ConvoticContext) -> None: ...
async def ship(run: WorkflowRun, ctx: ConvoticContext) -> None: ...


module.workflow("fulfil", steps=[reserve, ship])
'''
BASE = "http://127.0.0.1:8100"
QUEUE = "custom.orders.new.shop"


class Page:
    """What the page does: it reads, and posts JSON with its own Origin."""

    def __init__(self, client: httpx.AsyncClient, app: ConvoticApp) -> None:
        self._client = client
        self.app = app

    async def get(self, path: str, *, status: int = 200, **parameters: Any) -> Any:
        """Return the JSON at a path."""
        answer = await self._client.get(f"/api/{path}", params=parameters)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def post(self, path: str, body: Any = None, *, status: int = 200) -> Any:
        """Return the answer to what the page sends."""
        answer = await self._client.post(
            f"/api/{path}", json={} if body is None else body, headers={"origin": BASE}
        )
        assert answer.status_code == status, answer.text
        return answer.json()


MakePage: TypeAlias = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture
async def make_page(data_dir: Path) -> AsyncIterator[MakePage]:
    """Make dashboards with settings of their own, on one data folder and the module above."""
    modules = data_dir / "modules"
    modules.mkdir(exist_ok=True)
    # Python imports a name once in a process.
    (modules / f"dashboard_{uuid.uuid4().hex}.py").write_text(MODULE)
    async with AsyncExitStack() as stack:

        async def make(**changes: Any) -> Page:
            given: dict[str, Any] = {"data_dir": data_dir, "modules_dir": modules}
            app = create_app(
                Settings(**(given | {"remote_control": False} | changes)), set_as_current=False
            )
            dashboard = create_dashboard(app=app)
            await stack.enter_async_context(dashboard.router.lifespan_context(dashboard))
            client = httpx.AsyncClient(transport=httpx.ASGITransport(dashboard), base_url=BASE)
            # Or its streams would start the emulator again after the test.
            stack.push_async_callback(asyncio.to_thread, app.open_session().close)
            return Page(await stack.enter_async_context(client), app)

        yield make


@pytest_asyncio.fixture
async def page(make_page: MakePage) -> Page:
    return await make_page()
