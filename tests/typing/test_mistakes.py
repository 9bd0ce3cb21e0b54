"""What type checkers refuse: each ``type: ignore`` here is an error if mypy finds nothing there."""

# ruff: noqa: ARG001 - what is not used shows the types

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

from pydantic import BaseModel

from convotic_celery import (
    ConvoticContext,
    ConvoticModule,
    RouteRequest,
    Sdk,
    SyncConvoticContext,
    WorkerMessage,
    WorkflowRun,
)


class Order(BaseModel):
    id: int


async def handler(message: WorkerMessage[Order], ctx: ConvoticContext) -> None: ...
def plain(message: WorkerMessage[Order], ctx: SyncConvoticContext) -> None: ...
async def without_ctx(message: WorkerMessage[Order]) -> None: ...
async def data_itself(message: Order, ctx: ConvoticContext) -> None: ...
async def other_ctx(message: WorkerMessage[Order], ctx: int) -> None: ...
async def plain_ctx(message: WorkerMessage[Order], ctx: SyncConvoticContext) -> None: ...
def async_ctx(message: WorkerMessage[Order], ctx: ConvoticContext) -> None: ...
async def route(request: RouteRequest[Order], ctx: ConvoticContext) -> Order:
    return request.body


async def step(run: WorkflowRun, ctx: ConvoticContext) -> None: ...
async def one_argument(dead: object) -> None: ...


if TYPE_CHECKING:

    async def mistakes(module: ConvoticModule, sdk: Sdk) -> None:
        module.worker("t")(without_ctx)  # type: ignore[arg-type]
        module.worker("t")(data_itself)  # type: ignore[arg-type]
        module.worker("t")(other_ctx)  # type: ignore[arg-type]
        module.worker("t")(plain_ctx)  # type: ignore[arg-type]
        module.worker("t")(async_ctx)  # type: ignore[arg-type]
        module.worker("t", max_retires=3)(handler)  # type: ignore[call-arg]
        module.worker("t", on_dead_letter=one_argument)(handler)  # type: ignore[arg-type]
        module.route("GET", "/orders")(handler)  # type: ignore[type-var]
        module.workflow("w", steps=[handler])  # type: ignore[list-item]
        sdk.register_worker_handler(topic="t", handler=without_ctx)  # type: ignore[arg-type]
        sdk.register_worker_handler(topic="t", handler=async_ctx)  # type: ignore[arg-type]
        sdk.register_route(method="GET", path="/", handler=handler)  # type: ignore[arg-type]

    async def what_is_right(module: ConvoticModule, sdk: Sdk) -> None:
        decorated = module.worker("t")(handler)
        assert_type(decorated.delay(Order(id=1)), str)
        assert_type(await decorated.adelay(Order(id=1), attributes={"a": "b"}), str)
        decorated.delay({"id": 1})  # type: ignore[arg-type]
        assert_type(module.worker("t")(plain).delay(Order(id=1), ordering_key="k"), str)
        sdk.register_worker_handler(topic="t", handler=handler)
        sdk.register_worker_handler(topic="t", handler=plain)
        sdk.register_route(method="POST", path="/", handler=route)
        module.workflow("w", steps=[step])


def test_decorated_handlers_are_called_as_before() -> None:
    """The decorator's type has the function's parameters, and the function is the same."""
    module: Any = ConvoticModule(name="typed", version="1")

    assert module.worker("t.decorated")(handler) is handler
