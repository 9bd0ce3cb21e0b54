"""An author's mistakes are reported when the module loads, in words that help."""

# ruff: noqa: ARG001 - handlers and steps take what they are given, used or not

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, TypedDict

import pytest

from convotic_celery import (
    ConvoticContext,
    ConvoticModule,
    Retry,
    RouteRequest,
    Sdk,
    SyncConvoticContext,
    WorkerMessage,
    WorkflowRun,
)
from convotic_celery.errors import DuplicateHandler, HandlerSignatureError, ModuleError
from convotic_celery.sdk.middleware import check_returned


class NoPayload:
    """Nothing that pydantic knows."""


async def handler(message: WorkerMessage, ctx: ConvoticContext) -> None: ...
async def step(run: WorkflowRun, ctx: ConvoticContext) -> None: ...
async def step_of_message(message: WorkerMessage, ctx: ConvoticContext) -> None: ...
async def step_without_ctx(run: WorkflowRun) -> None: ...
async def step_with_plain_context(run: WorkflowRun, ctx: SyncConvoticContext) -> None: ...
async def step_that_yields(run: WorkflowRun, ctx: ConvoticContext) -> AsyncIterator[int]:
    yield 1


async def unknown_payload(message: WorkerMessage[NoPayload], ctx: ConvoticContext) -> None: ...


class OldCart(TypedDict):
    lines: int


async def typed_dict_of_old(message: WorkerMessage[OldCart], ctx: ConvoticContext) -> None: ...
async def route_of_none(request: RouteRequest[NoPayload], ctx: ConvoticContext) -> None: ...
async def register_async(sdk: Sdk) -> None: ...


def one_argument(dead: object) -> None: ...
def no_argument() -> str:
    return ""


@pytest.fixture
def module() -> Any:
    """A module, untyped: what is tried here is what type checkers refuse."""
    return ConvoticModule(name="shop", version="1")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (step_of_message, r"takes a message, but a step is called as step\(run, ctx\)"),
        (step_without_ctx, r"can't be called as step\(run, ctx\): its parameters are \(run"),
        (step_with_plain_context, "its context must be a ConvoticContext"),
        (step_that_yields, "is a generator"),
        ("reserve", "workflow 'fulfil', step 'reserve' is not a function but str"),
    ],
)
def test_step_that_could_not_run_is_refused(module: Any, given: Any, reason: str) -> None:
    """Before a run meets it, and fails."""
    with pytest.raises(HandlerSignatureError, match=reason):
        module.workflow("fulfil", steps=[given])


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([], "workflow 'fulfil' has no steps"),
        ([step, step], "have the same name"),
        ([lambda *_: None], "has no name; give it one"),
        ([functools.partial(step)], "has no name; give it one"),
    ],
)
def test_workflow_that_is_none_is_refused(module: Any, steps: list[Any], reason: str) -> None:
    """With the rule."""
    with pytest.raises(ModuleError, match=reason):
        module.workflow("fulfil", steps=steps)


def test_workflow_is_listed_where_its_first_step_is_written(module: Any) -> None:
    """Not in the framework's own file; and so is one that is there twice."""
    module.workflow("fulfil", steps=[step])

    (definition,) = module.collect_handlers()
    assert definition.source == f"{__file__}:{step.__code__.co_firstlineno}"
    with pytest.raises(DuplicateHandler, match=r"already has the workflow 'fulfil', at .*mistakes"):
        module.workflow("fulfil", steps=[step])
    with pytest.raises(ModuleError, match="workflow name 'a b'"):
        module.workflow("a b", steps=[step])


def test_decorator_without_its_call_is_refused(module: Any) -> None:
    """Nothing would be registered, and no message ever handled."""
    with pytest.raises(
        ModuleError, match=r"the first argument is the topic, as in @module\.worker"
    ):
        module.worker(handler)
    with pytest.raises(ModuleError, match=r"the first argument is the method, as in @module\.rout"):
        module.route(handler, "/orders")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"backoff": 5}, r"backoff: it must be ConstantBackoff\(delay=...\) or Exponential"),
        ({"on_dead_letter": one_argument}, r"can't be called as function\(dead, ctx\)"),
        ({"deduplicate": no_argument}, r"can't be called as function\(message\)"),
    ],
)
def test_option_that_could_not_work_is_refused(module: Any, options: Any, reason: str) -> None:
    """A hook that can't be called would fail silently, message by message."""
    with pytest.raises(ModuleError, match=reason):
        module.worker("custom.orders.new", **options)(handler)


def test_payload_that_is_none_says_what_one_is(module: Any) -> None:
    """In our words, not in those of pydantic for authors of types."""
    with pytest.raises(HandlerSignatureError, match=r"Use a pydantic model") as caught:
        module.worker("custom.orders.new")(unknown_payload)
    assert "arbitrary_types_allowed" not in str(caught.value)


def test_pydantics_other_complaints_are_module_errors(module: Any) -> None:
    """They name file and line, and no traceback of pydantic's reaches the author."""
    with pytest.raises(HandlerSignatureError, match=r"bodies can't be validated .* Use a"):
        module.route("POST", "/orders")(route_of_none)
    if sys.version_info < (3, 12):
        with pytest.raises(HandlerSignatureError, match=r"test_mistakes.*typing_extensions\.Typed"):
            module.worker("custom.orders.new")(typed_dict_of_old)


async def bare_lifespan() -> AsyncIterator[None]:
    """Lack the decorator."""
    yield


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"register": register_async}, "register must be a plain def"),
        ({"lifespan": object()}, "pass the function without calling it"),
        ({"lifespan": bare_lifespan}, "put @contextlib.asynccontextmanager above it"),
    ],
)
def test_module_that_could_not_load_is_refused(given: dict[str, Any], reason: str) -> None:
    """Where it is made."""
    with pytest.raises(ModuleError, match=reason):
        ConvoticModule("shop", "1", **given)


def test_retry_with_its_message_first_says_so() -> None:
    """The delay is the first argument."""
    with pytest.raises(TypeError, match=r"use Retry\(message='the bank is not done'\)"):
        Retry("the bank is not done")  # type: ignore[arg-type]  # the point


async def later() -> None: ...


@pytest.mark.parametrize(
    ("make", "reason"),
    [(later, "a coroutine that was never awaited"), (lambda: Retry(5), "instead of raising it")],
)
def test_result_that_shows_undone_work_is_an_error(make: Callable[[], Any], reason: str) -> None:
    """Else the message would be acknowledged, and its work never done."""
    check_returned(None)
    check_returned({"done": 1})
    with pytest.raises(TypeError, match=reason):
        check_returned(make())
