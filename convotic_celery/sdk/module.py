"""What an author writes handlers with: :class:`ConvoticModule` and its decorators.

::

    module = ConvoticModule(name="order-processor", version="1.0.0")

    @module.worker("custom.orders.new", max_retries=3, ack_deadline=60, concurrency=10)
    async def process_order(message: WorkerMessage[Order], ctx: ConvoticContext) -> None: ...

    @module.route("POST", "/orders")
    async def create_order(request: RouteRequest[Order], ctx: ConvoticContext) -> dict: ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast, overload

from convotic_celery.errors import ModuleError
from convotic_celery.names import check_module_name
from convotic_celery.sdk.decorated import make_callable
from convotic_celery.sdk.registration import Sdk, collect

if TYPE_CHECKING:
    from convotic_celery.sdk.decorated import HandlerDecorator, RouteHandler
    from convotic_celery.sdk.handler import HandlerDefinition
    from convotic_celery.sdk.lifespan import Lifespan
    from convotic_celery.sdk.middleware import RouteMiddleware, WorkerMiddleware
    from convotic_celery.sdk.options import WorkerOptionsDict
    from convotic_celery.sdk.workflow import WorkflowStep

__all__ = ["ConvoticModule"]

#: What ``module.schedule`` is given beside the options of a handler.
_OF_SCHEDULES = {"every", "name", "data", "attributes"}

RouteHandlerT = TypeVar("RouteHandlerT", bound="RouteHandler")


class ConvoticModule:
    """A named, versioned set of handlers and routes, which the worker loads at startup.

    Args:
        name: A letter, then letters, digits, ``_`` and ``-``; part of queue and subscription names,
            so renaming a module creates new subscriptions.
        version: Shown in logs and listings.
        register: Called with an :class:`Sdk` when the module is loaded; in addition to or instead
            of the decorator :meth:`worker`.
        lifespan: Returns an async context manager that is entered once per process, when a worker
            or web server starts, and left when it stops; ``ctx.resource(kind)`` returns its value.
            If it fails, the worker does not start.
        middleware: Wraps each run of a worker handler, or each call of a route (by its type); the
            first one outermost.

    """

    def __init__(
        self,
        name: str,
        version: str,
        register: Callable[[Sdk], None] | None = None,
        *,
        lifespan: Lifespan | None = None,
        middleware: Sequence[WorkerMiddleware | RouteMiddleware] = (),
    ) -> None:
        self.name = check_module_name(name)
        self.version = version
        if inspect.iscoroutinefunction(register):
            raise ModuleError(
                f"module {name!r}: register must be a plain def, since it is called, not awaited, "
                "when the module is loaded. Use lifespan= to open something asynchronously."
            )
        if lifespan is not None and not callable(lifespan):
            raise ModuleError(
                f"module {name!r}: lifespan must be a function that returns an async context "
                f"manager; pass the function without calling it, not {lifespan!r}."
            )
        self._register = register
        self._decorated = Sdk(name, version)
        for each in middleware:
            self._decorated.use(each)
        if inspect.isasyncgenfunction(lifespan) or inspect.iscoroutinefunction(lifespan):
            raise ModuleError(
                f"module {name!r}: the lifespan {lifespan.__name__} is not a context manager: put "
                "@contextlib.asynccontextmanager above it, and yield once."
            )
        self._lifespan = lifespan

    def __repr__(self) -> str:
        return f"ConvoticModule(name={self.name!r}, version={self.version!r})"

    def worker(
        self, topic: str, *, name: str | None = None, **options: Unpack[WorkerOptionsDict]
    ) -> HandlerDecorator:
        """Return a decorator that registers a handler for ``topic`` and returns it unchanged.

        Takes the options of :class:`WorkerOptions` as keyword arguments; raises what
        :meth:`Sdk.register_worker_handler` does. The function gets ``delay`` and ``adelay``, which
        publish to this handler alone.
        """
        _check_text("worker", topic, 'topic, as in @module.worker("custom.orders.new")')

        def register(handler: Any) -> Any:
            definition = self._decorated.register_worker_handler(
                topic=topic, options=options, handler=handler, name=name
            )
            return make_callable(handler, definition.queue)

        return cast("HandlerDecorator", register)

    def route(
        self, method: str, path: str, *, status: int = 200
    ) -> Callable[[RouteHandlerT], RouteHandlerT]:
        """Return a decorator that registers a route's handler and returns it unchanged.

        Takes and raises what :meth:`Sdk.register_route` does.
        """
        _check_text("route", method, 'method, as in @module.route("POST", "/orders")')

        def register(handler: RouteHandlerT) -> RouteHandlerT:
            self._decorated.register_route(method=method, path=path, handler=handler, status=status)
            return handler

        return register

    def workflow(
        self,
        name: str,
        *,
        steps: Sequence[WorkflowStep],
        **options: Unpack[WorkerOptionsDict],
    ) -> None:
        """Register a workflow; takes and raises what :meth:`Sdk.register_workflow` does."""
        self._decorated.register_workflow(name=name, steps=steps, options=options)

    @overload
    def schedule(
        self,
        cron: str | None = None,
        *,
        every: timedelta | float | None = None,
        topic: str,
        name: str | None = None,
        data: Any = None,
        attributes: Mapping[str, str] | None = None,
    ) -> None: ...
    @overload
    def schedule(
        self,
        cron: str | None = None,
        *,
        every: timedelta | float | None = None,
        name: str | None = None,
        data: Any = None,
        attributes: Mapping[str, str] | None = None,
        **options: Unpack[WorkerOptionsDict],
    ) -> HandlerDecorator: ...
    def schedule(
        self, cron: str | None = None, *, topic: str | None = None, **given: Any
    ) -> HandlerDecorator | None:
        """Register a schedule to publish to ``topic``, or return a decorator of a handler to run.

        ``@module.schedule("0 3 * * *")`` or ``@module.schedule(every=60, max_retries=3)`` above
        ``async def nightly(message, ctx)``; ``module.schedule(every=60, topic="custom.tick")``.
        Takes and raises what :meth:`Sdk.register_schedule` does. Celery's beat must run.
        """
        if callable(cron):
            _check_text("schedule", cron, 'cron expression, as in @module.schedule("0 3 * * *")')
        own = {name: given.pop(name) for name in _OF_SCHEDULES & given.keys()}
        if topic is not None:
            if given:
                raise ModuleError(
                    f"module.schedule: a schedule with topic= has no options {', '.join(given)}: "
                    "these are for handlers."
                )
            self._decorated.register_schedule(cron=cron, topic=topic, **own)
            return None

        def register(handler: Any) -> Any:
            made = self._decorated.register_schedule(
                cron=cron, handler=handler, options=given, **own
            )
            return make_callable(handler, made.queue or "")

        return cast("HandlerDecorator", register)

    def use(self, middleware: WorkerMiddleware | RouteMiddleware) -> None:
        """Put ``middleware`` around all handlers or all routes, as :meth:`Sdk.use` does."""
        self._decorated.use(middleware)

    def collect(self) -> Sdk:
        """Return everything registered by decorators and by ``register``.

        Calls ``register`` each time, keeps nothing of it, and lets its errors pass through.
        """
        return collect(self._decorated, self._register, self._lifespan)

    def collect_handlers(self) -> tuple[HandlerDefinition, ...]:
        """Return all worker handlers; see :meth:`collect`."""
        return self.collect().handlers


def _check_text(decorator: str, given: object, wanted: str) -> None:
    """Refuse ``@module.worker`` without its call, which would silently register nothing."""
    if not isinstance(given, str):
        raise ModuleError(f"module.{decorator}: the first argument is the {wanted}, not {given!r}.")
