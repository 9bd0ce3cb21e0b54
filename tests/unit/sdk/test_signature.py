"""What registration makes of a handler's signature."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from pydantic import BaseModel

from convotic_celery.context import ConvoticContext, SyncConvoticContext
from convotic_celery.errors import HandlerSignatureError
from convotic_celery.sdk import WorkerMessage
from convotic_celery.sdk.signature import inspect_handler

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTyping

T = TypeVar("T")


class Order(BaseModel):
    id: int


async def async_handler(message: WorkerMessage[Order], ctx: ConvoticContext) -> None: ...
def plain_handler(message: WorkerMessage[Order], ctx: SyncConvoticContext) -> None: ...
async def bare_async(message: WorkerMessage, ctx: Any) -> None: ...
def quoted(message: WorkerMessage["Order"], ctx: Any) -> None: ...  # noqa: UP037 - the point
def bare(message: WorkerMessage, ctx: Any) -> None: ...
def any_payload(message: WorkerMessage[Any], ctx: Any) -> None: ...
def any_message(message: Any, ctx: Any) -> None: ...
def generic(message: WorkerMessage[T], ctx: Any) -> None: ...
def list_payload(message: WorkerMessage[list[Order]], ctx: Any) -> None: ...
def with_default(message: WorkerMessage[Order], ctx: Any, retries: int = 1) -> None: ...
def with_rest(*arguments: Any, **options: Any) -> None: ...
def optional_payload(message: WorkerMessage[Order | None], ctx: Any) -> None: ...


class Handlers:
    async def method(self, message: WorkerMessage[Order], ctx: ConvoticContext) -> None: ...
    @staticmethod
    def static(message: WorkerMessage[Order], ctx: SyncConvoticContext) -> None: ...


class CallableObject:
    async def __call__(self, message: WorkerMessage[Order], ctx: ConvoticContext) -> None: ...


def needs_shop(shop: str, message: WorkerMessage[Order], ctx: SyncConvoticContext) -> None: ...


def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*arguments: Any) -> Any:
        return await function(*arguments)

    return wrapper


@pytest.mark.parametrize(
    ("handler", "is_async", "payload_type"),
    [
        (async_handler, True, Order),
        (plain_handler, False, Order),
        (bare_async, True, None),
        (quoted, False, Order),
        (bare, False, None),
        (any_payload, False, None),
        (any_message, False, None),
        (generic, False, None),
        (list_payload, False, list[Order]),
        (optional_payload, False, Order | None),
        (with_default, False, Order),
        (with_rest, False, None),
        (Handlers().method, True, Order),
        (Handlers.static, False, Order),
        (CallableObject(), True, Order),
        (functools.partial(needs_shop, "berlin"), False, Order),
        (decorator(async_handler), True, Order),
        (lambda message, ctx: None, False, None),  # noqa: ARG005 - a handler has both
    ],
    ids=lambda value: getattr(value, "__qualname__", type(value).__name__),
)
def test_handler_is_understood(
    handler: Callable[..., object], is_async: bool, payload_type: object
) -> None:
    """Kind, payload and place are read from functions, methods, partials and objects."""
    signature = inspect_handler(handler)

    assert signature.is_async is is_async
    assert signature.payload_type == payload_type
    assert signature.source.partition(":")[0] == __file__


# ruff: noqa: ARG001 - handlers take both arguments, whatever they use
def too_few(message: Any) -> None: ...
def too_many(message: Any, ctx: Any, third: Any) -> None: ...
def keyword_only(message: Any, ctx: Any, *, shop: str) -> None: ...
def generator(message: Any, ctx: Any) -> Iterator[int]:
    yield 1


async def async_generator(message: Any, ctx: Any) -> AsyncIterator[int]:
    yield 1


def payload_itself(order: Order, ctx: Any) -> None: ...
def typing_only(message: WorkerMessage[OnlyForTyping], ctx: Any) -> None: ...
async def wrong_context(message: Any, ctx: SyncConvoticContext) -> None: ...
def other_wrong_context(message: Any, ctx: ConvoticContext) -> None: ...


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (too_few, "too many positional arguments"),
        (too_many, "missing a required argument: 'third'"),
        (keyword_only, "missing a required (keyword-only )?argument: 'shop'"),  # Python's words
        (lambda: None, "too many positional arguments"),
        (generator, "is a generator"),
        (async_generator, "is a generator"),
        (Order, "is not a function"),
        ("handler", "is not a function but str"),
        (payload_itself, "the first parameter is the message"),
        (typing_only, "not under TYPE_CHECKING"),
        (wrong_context, "its context must be a ConvoticContext"),
        (other_wrong_context, "its context must be a SyncConvoticContext"),
    ],
    ids=lambda value: getattr(value, "__qualname__", str(value)),
)
def test_wrong_handler_is_refused_with_the_reason(handler: Any, reason: str) -> None:
    """Registration says what is wrong, before any message comes."""
    with pytest.raises(HandlerSignatureError, match=reason):
        inspect_handler(handler)


def test_error_names_file_and_line() -> None:
    """As an editor can jump to."""
    line = too_few.__code__.co_firstlineno

    with pytest.raises(HandlerSignatureError, match=rf"test_signature\.py:{line}: handler too_few"):
        inspect_handler(too_few)


def test_payload_of_an_enclosing_function_is_found() -> None:
    """A register function may define the model it uses."""

    class Local(BaseModel):
        id: int

    def handler(message: WorkerMessage[Local], ctx: Any) -> type[BaseModel]:
        return Local

    assert inspect_handler(handler).payload_type is Local


def test_message_type_may_be_imported_for_typing_only() -> None:
    """Linters move an import that only annotations use."""
    scope: dict[str, Any] = {}
    exec("def handler(message: 'WorkerMessage[int]', ctx: 'SyncConvoticContext'): ...", scope)

    assert inspect_handler(scope["handler"]).payload_type is int
