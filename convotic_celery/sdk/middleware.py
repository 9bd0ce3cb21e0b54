"""Code around handlers: :class:`WorkerMiddleware`, and :class:`RouteMiddleware` around routes.

::

    class Timing(WorkerMiddleware):
        async def before(self, message, ctx): ...
        async def after(self, message, ctx): ...
        async def on_error(self, message, ctx, error): ...

    module.use(Timing())

``before`` hooks run in the order of registration, ``after`` and ``on_error`` in reverse.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from convotic_celery.errors import ModuleError

if TYPE_CHECKING:
    from convotic_celery.sdk.http import RouteRequest, RouteResponse
    from convotic_celery.sdk.message import WorkerMessage

__all__ = [
    "RouteMiddleware",
    "WorkerMiddleware",
    "check_middleware",
    "check_returned",
    "compose_async",
    "compose_sync",
    "report_error_async",
    "report_error_sync",
    "settle",
]

_HOOKS = ("before", "after", "on_error")


class WorkerMiddleware:
    """Hooks around each run; override those you want, as ``def`` or ``async def``.

    A module with plain ``def`` handlers needs plain hooks. One object serves all messages
    concurrently: keep no state of a run in it; use ``contextvars``.
    """

    def before(self, message: WorkerMessage[Any], ctx: Any) -> Awaitable[None] | None:
        """Run before the handler; what it raises (``Drop`` and ``Retry`` too) is the outcome."""

    def after(self, message: WorkerMessage[Any], ctx: Any) -> Awaitable[None] | None:
        """Run after the handler has returned; raising makes the run a failure."""

    def on_error(
        self, message: WorkerMessage[Any], ctx: Any, error: Exception
    ) -> Awaitable[None] | None:
        """Run after the handler or a hook has raised (outcomes too) or was stopped.

        Raising replaces the error, also for the hooks around this one. All together may take half
        of ``deadline_grace``.
        """


class RouteMiddleware:
    """Hooks around each call of a route's handler; override those you want.

    They are ``def`` or ``async def``; a module with plain ``def`` routes needs plain hooks. One
    object serves all requests concurrently: keep no state of a request in it; use ``contextvars``.
    It does not see requests that are refused before a handler is called (404, an invalid body):
    for those, give Starlette's middleware to ``create_asgi_app``.
    """

    def before(self, request: RouteRequest[Any], ctx: Any) -> Awaitable[None] | None:
        """Run before the handler; ``raise Problem(401)`` responds without calling it."""

    def after(
        self, request: RouteRequest[Any], ctx: Any, response: RouteResponse[Any]
    ) -> Awaitable[None] | None:
        """Run after the handler has returned, with its response; what it raises is sent instead."""

    def on_error(
        self, request: RouteRequest[Any], ctx: Any, error: Exception
    ) -> Awaitable[None] | None:
        """Run after the handler or a hook has raised (``Problem`` too).

        Raising replaces the error, also for the hooks around this one.
        """


def check_middleware(middleware: Sequence[object], *, is_async: bool, where: str) -> None:
    """Raise ModuleError for anything but middleware, and for async hooks of a plain handler."""
    for each in middleware:
        if not isinstance(each, WorkerMiddleware | RouteMiddleware):
            raise ModuleError(
                f"{where}: {each!r} is neither a WorkerMiddleware nor a RouteMiddleware; derive "
                "it from one of them."
            )
        hooks = [h for h in _HOOKS if inspect.iscoroutinefunction(getattr(each, h))]
        if hooks and not is_async:
            raise ModuleError(
                f"{where} is a plain def handler, and {type(each).__name__}.{hooks[0]} is "
                "async, so it would never be awaited. Make it a plain def."
            )


def compose_async(
    handler: Callable[..., Awaitable[object]], middleware: Sequence[WorkerMiddleware]
) -> Callable[..., Awaitable[object]]:
    """Return the handler with its hooks before and after; the handler itself if there are none."""
    if not middleware:
        return handler

    async def call(message: WorkerMessage[Any], ctx: Any) -> None:
        for each in middleware:
            await settle(each.before(message, ctx))
        check_returned(await handler(message, ctx))
        for each in reversed(middleware):
            await settle(each.after(message, ctx))

    return call


def compose_sync(
    handler: Callable[..., object], middleware: Sequence[WorkerMiddleware]
) -> Callable[..., object]:
    """Do what :func:`compose_async` does, for a plain handler."""
    if not middleware:
        return handler

    def call(message: WorkerMessage[Any], ctx: Any) -> None:
        for each in middleware:
            each.before(message, ctx)
        check_returned(handler(message, ctx))
        for each in reversed(middleware):
            each.after(message, ctx)

    return call


async def report_error_async(
    middleware: Sequence[WorkerMiddleware | RouteMiddleware],
    message: Any,
    ctx: Any,
    error: Exception,
) -> Exception:
    """Call each ``on_error``, the last one first, and return the error that it is then.

    What a hook raises is the error for those around it, which are called all the same.
    """
    for each in reversed(middleware):
        try:
            await settle(each.on_error(message, ctx, error))
        except Exception as raised:  # noqa: BLE001 - returned
            error = raised
    return error


def report_error_sync(
    middleware: Sequence[WorkerMiddleware | RouteMiddleware],
    message: Any,
    ctx: Any,
    error: Exception,
) -> Exception:
    """Do what :func:`report_error_async` does, for a plain handler."""
    for each in reversed(middleware):
        try:
            each.on_error(message, ctx, error)
        except Exception as raised:  # noqa: BLE001 - returned
            error = raised
    return error


async def settle(result: Awaitable[None] | None) -> None:
    """Await what a hook has returned, if it is async."""
    if result is not None:
        await result


def check_returned(returned: object) -> None:
    """Raise TypeError if a handler's return value shows that its work was not done.

    Otherwise the message would be acknowledged. Such values are a coroutine that was never awaited
    (from a plain function, or a decorator), and an outcome that was returned instead of raised.
    """
    if returned is None:
        return
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise TypeError(
            f"the handler returned a {type(returned).__name__} that was never awaited: make the "
            "handler an async def and await it there. A decorator must be async def, too."
        )
    if isinstance(returned, BaseException):
        raise TypeError(f"the handler returned {returned!r} instead of raising it.")
