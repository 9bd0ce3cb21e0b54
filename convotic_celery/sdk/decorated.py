"""What ``@module.worker`` returns: the function itself, which can now be published to.

::

    process_order.delay(order)          # in a script, Django, a plain handler, any Celery task
    await process_order.adelay(order)   # in a coroutine

``ctx.pubsub.publish`` reaches every handler of a topic; these reach only this one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, Protocol, TypeAlias, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from convotic_celery.context import ConvoticContext, SyncConvoticContext
    from convotic_celery.sdk.http import RouteRequest
    from convotic_celery.sdk.message import WorkerMessage

    #: A handler: a coroutine function, or a plain one with the plain context.
    WorkerHandler: TypeAlias = (
        Callable[[WorkerMessage[Any], ConvoticContext], Awaitable[object]]
        | Callable[[WorkerMessage[Any], SyncConvoticContext], object]
        | Callable[[list[WorkerMessage[Any]], ConvoticContext], Awaitable[object]]
        | Callable[[list[WorkerMessage[Any]], SyncConvoticContext], object]
    )
    #: The same for routes; further parameters are FastAPI's to fill.
    RouteHandler: TypeAlias = (
        Callable[Concatenate[RouteRequest[Any], ConvoticContext, ...], Awaitable[object]]
        | Callable[Concatenate[RouteRequest[Any], SyncConvoticContext, ...], object]
    )

__all__ = ["DecoratedBatchHandler", "DecoratedHandler", "HandlerDecorator", "make_callable"]

DataT_contra = TypeVar("DataT_contra", contravariant=True)
ContextT_contra = TypeVar("ContextT_contra", contravariant=True)
ResultT_co = TypeVar("ResultT_co", covariant=True)
DataT = TypeVar("DataT")


class Publishable(Protocol[DataT_contra]):
    """What a registered function gets: it can be published to."""

    __name__: str

    def delay(
        self,
        data: DataT_contra,
        *,
        attributes: Mapping[str, str] | None = None,
        ordering_key: str = "",
    ) -> str:
        """Publish a message that only this handler gets; return its id once it is confirmed.

        Blocks. Uses the app of ``convotic_celery.pubsub`` and makes the same checks; raises
        HandlerNotLoaded if that app has not loaded the handler.
        """
        ...

    async def adelay(
        self,
        data: DataT_contra,
        *,
        attributes: Mapping[str, str] | None = None,
        ordering_key: str = "",
    ) -> str:
        """Do what :meth:`delay` does, without blocking the event loop."""
        ...


class DecoratedHandler(
    Publishable[DataT_contra], Protocol[DataT_contra, ContextT_contra, ResultT_co]
):
    """The function as it was written, with ``delay`` and ``adelay``."""

    def __call__(self, message: WorkerMessage[DataT_contra], ctx: ContextT_contra) -> ResultT_co:
        """Call the function, as a test does."""
        ...


class DecoratedBatchHandler(
    Publishable[DataT_contra], Protocol[DataT_contra, ContextT_contra, ResultT_co]
):
    """The same for a batch handler; ``delay`` publishes one message."""

    def __call__(
        self, messages: Sequence[WorkerMessage[DataT_contra]], ctx: ContextT_contra
    ) -> ResultT_co:
        """Call the function, as a test does."""
        ...


class HandlerDecorator(Protocol):
    """What ``module.worker(...)`` returns."""

    @overload
    def __call__(
        self,
        handler: Callable[[WorkerMessage[DataT], ConvoticContext], Coroutine[Any, Any, None]],
        /,
    ) -> DecoratedHandler[DataT, ConvoticContext, Coroutine[Any, Any, None]]: ...
    @overload
    def __call__(
        self, handler: Callable[[WorkerMessage[DataT], SyncConvoticContext], None], /
    ) -> DecoratedHandler[DataT, SyncConvoticContext, None]: ...
    @overload
    def __call__(
        self,
        handler: Callable[[list[WorkerMessage[DataT]], ConvoticContext], Coroutine[Any, Any, None]],
        /,
    ) -> DecoratedBatchHandler[DataT, ConvoticContext, Coroutine[Any, Any, None]]: ...
    @overload
    def __call__(
        self, handler: Callable[[list[WorkerMessage[DataT]], SyncConvoticContext], None], /
    ) -> DecoratedBatchHandler[DataT, SyncConvoticContext, None]: ...


def make_callable(handler: Any, queue: str) -> Any:
    """Give the function ``delay`` and ``adelay`` and return it; wrap it if it takes no attributes.

    If a function is registered several times, they publish to the last one.
    """
    try:
        _attach(handler, queue)
    except AttributeError:  # a bound method, an object with slots
        handler = functools.partial(handler)
        _attach(handler, queue)
    return handler


def _attach(handler: Any, queue: str) -> None:
    handler.delay = functools.partial(_delay, queue)
    handler.adelay = functools.partial(_adelay, queue)


def _delay(
    queue: str,
    data: Any,
    *,
    attributes: Mapping[str, str] | None = None,
    ordering_key: str = "",
) -> str:
    message_id: str = _facade().publish_to_handler(queue, data, attributes or {}, ordering_key)
    return message_id


async def _adelay(
    queue: str,
    data: Any,
    *,
    attributes: Mapping[str, str] | None = None,
    ordering_key: str = "",
) -> str:
    message_id: str = await _facade().apublish_to_handler(
        queue, data, attributes or {}, ordering_key
    )
    return message_id


def _facade() -> Any:
    # The one import upwards in the framework: importing the SDK loads nothing that runs handlers.
    from convotic_celery import pubsub  # noqa: PLC0415 - see above

    return pubsub
