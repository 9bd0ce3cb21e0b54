"""How handlers are registered: :class:`ConvoticModule`, and the :class:`Sdk` for ``register``.

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
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast, overload

from pydantic import ValidationError

from convotic_celery.errors import DuplicateHandler, DuplicateRoute, ModuleError
from convotic_celery.names import check_module_name, schedule_topic, workflow_topic
from convotic_celery.sdk.decorated import make_callable
from convotic_celery.sdk.handler import HandlerDefinition, define_handler
from convotic_celery.sdk.middleware import RouteMiddleware, WorkerMiddleware, check_middleware
from convotic_celery.sdk.option_errors import describe_options
from convotic_celery.sdk.options import WorkerOptions, WorkerOptionsDict
from convotic_celery.sdk.route import RouteDefinition, define_route
from convotic_celery.sdk.schedule import ScheduleDefinition, define_schedule
from convotic_celery.sdk.workflow import build_workflow

if TYPE_CHECKING:
    from convotic_celery.sdk.decorated import HandlerDecorator, RouteHandler, WorkerHandler
    from convotic_celery.sdk.lifespan import Lifespan
    from convotic_celery.sdk.workflow import WorkflowStep

__all__ = ["ConvoticModule", "Sdk"]

#: What ``module.schedule`` is given beside the options of a handler.
_OF_SCHEDULES = {"every", "name", "data", "attributes"}

RouteHandlerT = TypeVar("RouteHandlerT", bound="RouteHandler")


class Sdk:
    """Registers a module's handlers and routes; the argument of its ``register`` function.

    Not thread-safe. Each registration is checked immediately: names, options, signature.
    """

    def __init__(self, module: str, version: str) -> None:
        self._module = module
        self._version = version
        self._handlers: dict[str, HandlerDefinition] = {}
        self._routes: dict[tuple[str, str], RouteDefinition] = {}
        self._schedules: dict[str, ScheduleDefinition] = {}
        self._middleware: list[WorkerMiddleware | RouteMiddleware] = []

    @property
    def handlers(self) -> tuple[HandlerDefinition, ...]:
        """The registered worker handlers, in order."""
        return tuple(self._handlers.values())

    @property
    def routes(self) -> tuple[RouteDefinition, ...]:
        """The registered routes, in order."""
        return tuple(self._routes.values())

    @property
    def schedules(self) -> tuple[ScheduleDefinition, ...]:
        """The schedules that have been registered, in order."""
        return tuple(self._schedules.values())

    def register_worker_handler(
        self,
        *,
        topic: str,
        handler: WorkerHandler,
        options: WorkerOptions | Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> HandlerDefinition:
        """Register ``handler`` to be called with each message of ``topic``.

        Args:
            topic: Short name of the Pub/Sub topic.
            handler: ``async def`` or ``def``, called as ``handler(message, ctx)``. Its return value
                is ignored; if it raises, the message is delivered again.
            options: Or a mapping, with snake_case or camelCase names.
            name: Needed for a module's second handler of one topic; part of its queue's name.

        Raises HandlerSignatureError, DuplicateHandler, or a ModuleError that names the rule.

        """
        definition = define_handler(
            handler,
            module=self._module,
            module_version=self._version,
            topic=topic,
            name=name,
            options=_parse_options(topic, options),
        )
        self._add(definition)
        return definition

    def register_workflow(
        self,
        *,
        name: str,
        steps: Sequence[WorkflowStep],
        options: Mapping[str, Any] | None = None,
    ) -> HandlerDefinition:
        """Register a workflow: ``ctx.workflows.start(name, ...)`` runs ``steps`` in order.

        Args:
            name: A letter, then letters, digits, ``_`` and ``-``; its topic is ``workflow.NAME``.
            steps: Functions ``(run, ctx)``, all ``async def`` or all ``def``, or Celery canvas: a
                task, a signature, ``("name", group(...))``. A step returns JSON, which is
                stored under its name in ``run.results``. Each may run more than once.
            options: Those of a handler; they apply to each step.

        Raises a ModuleError that names the rule.
        """
        topic = workflow_topic(name)
        handler, given, source = build_workflow(name, steps, dict(options or {}))
        definition = define_handler(
            handler,
            module=self._module,
            module_version=self._version,
            topic=topic,
            name=None,
            options=_parse_options(topic, given),
        )
        definition = replace(definition, source=source)
        other = self._handlers.get(definition.queue)
        if other is not None:
            raise DuplicateHandler(
                f"{source}: module {self._module!r} already has the workflow {name!r}, at "
                f"{other.source}."
            )
        self._add(definition)
        return definition

    def register_route(
        self,
        *,
        method: str,
        path: str,
        handler: RouteHandler,
        status: int = 200,
    ) -> RouteDefinition:
        """Register ``handler`` for requests of ``method`` to ``path``.

        Args:
            method: GET, POST, PUT, PATCH or DELETE.
            path: ``/orders`` or ``/orders/{order_id}``.
            handler: ``async def`` or ``def``, called as ``handler(request, ctx)``; returns
                ``{"status": 202, "body": {...}}``, a RouteResponse, anything else that pydantic
                can write as JSON, or None for 204.
            status: Of responses without a status of their own.

        Raises HandlerSignatureError, DuplicateRoute, or a ModuleError that names the rule.
        """
        route = define_route(
            handler,
            module=self._module,
            module_version=self._version,
            method=method,
            path=path,
            status=status,
        )
        self._add_route(route)
        return route

    def register_schedule(
        self,
        *,
        cron: str | None = None,
        every: timedelta | float | None = None,
        topic: str | None = None,
        handler: WorkerHandler | None = None,
        name: str | None = None,
        data: Any = None,
        attributes: Mapping[str, str] | None = None,
        options: WorkerOptions | Mapping[str, Any] | None = None,
    ) -> ScheduleDefinition:
        """Have Celery's beat publish a message again and again: to ``topic``, or for ``handler``.

        Args:
            cron: ``"0 3 * * *"``: minute, hour, day of month, month, day of week, in UTC.
            every: Instead: a timedelta or seconds, at least 1.
            topic: Where the message goes, to all its subscribers.
            handler: Instead: called as ``handler(message, ctx)``, with the retries and dead letters
                of any handler; its topic is ``schedule.NAME``.
            name: Unique in the module. Default: the handler's, or the topic.
            data: Of each message: anything with a JSON form.
            attributes: Of each message.
            options: Of the handler.

        Raises HandlerSignatureError, or ModuleError that says the rule.
        """
        if (topic is None) == (handler is None):
            raise ModuleError("a schedule has a topic to publish to, or a handler to run.")
        name = str(name or topic or getattr(handler, "__name__", ""))
        queue = None
        if handler is not None:
            queue = self.register_worker_handler(
                topic=schedule_topic(name), handler=handler, options=options
            ).queue
        found = define_schedule(
            module=self._module,
            name=name,
            cron=cron,
            every=every,
            topic=topic,
            queue=queue,
            data=data,
            attributes=attributes,
        )
        self._add_schedule(found)
        return found

    def use(self, middleware: WorkerMiddleware | RouteMiddleware) -> None:
        """Put ``middleware`` around all handlers or all routes, inside the existing ones.

        Raises ModuleError for anything but middleware.
        """
        check_middleware([middleware], is_async=True, where=f"module {self._module!r}")
        self._middleware.append(middleware)

    def _surround(self, lifespan: Lifespan | None) -> None:
        """Give the module's middleware and lifespan to its handlers and routes, and check them."""
        if not self._middleware and lifespan is None:
            return
        around = tuple(each for each in self._middleware if isinstance(each, WorkerMiddleware))
        for queue, definition in self._handlers.items():
            changed = replace(definition, middleware=around, lifespan=lifespan)
            changed.check()
            self._handlers[queue] = changed
        outside = tuple(each for each in self._middleware if isinstance(each, RouteMiddleware))
        for key, route in self._routes.items():
            surrounded = replace(route, middleware=outside, lifespan=lifespan)
            surrounded.check()
            self._routes[key] = surrounded

    def _add_route(self, route: RouteDefinition) -> None:
        other = self._routes.setdefault((route.method, route.shape), route)
        if other is not route:
            raise DuplicateRoute(
                f"{route.source}: module {self._module!r} already has {other.name}, at "
                f"{other.source}."
            )

    def _add_schedule(self, schedule: ScheduleDefinition) -> None:
        if self._schedules.setdefault(schedule.name, schedule) is not schedule:
            raise ModuleError(
                f"module {self._module!r} already has a schedule {schedule.name!r}. Give this one "
                "a name: name='...'."
            )

    def _add(self, definition: HandlerDefinition) -> None:
        other = self._handlers.get(definition.queue)
        if other is not None:
            raise DuplicateHandler(
                f"{definition.source}: module {self._module!r} already has a handler for "
                f"{definition.topic!r}, at {other.source}. Give this one a name: name='...'."
            )
        self._handlers[definition.queue] = definition


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
                f"module {name!r}: the lifespan {lifespan.__name__} is no context manager yet: put "
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
        Means and raises what :meth:`Sdk.register_schedule` does. Celery's beat must run.
        """
        if callable(cron):
            _check_text("schedule", cron, 'cron line, as in @module.schedule("0 3 * * *")')
        own = {name: given.pop(name) for name in _OF_SCHEDULES & given.keys()}
        if topic is not None:
            if given:
                raise ModuleError(
                    f"module.schedule: {', '.join(given)}: only a handler has options, not a topic."
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
        sdk = Sdk(self.name, self.version)
        for definition in self._decorated.handlers:
            sdk._add(definition)
        for route in self._decorated.routes:
            sdk._add_route(route)
        for schedule in self._decorated.schedules:
            sdk._add_schedule(schedule)
        sdk._middleware.extend(self._decorated._middleware)
        if self._register is not None:
            self._register(sdk)
        sdk._surround(self._lifespan)
        return sdk

    def collect_handlers(self) -> tuple[HandlerDefinition, ...]:
        """Return all worker handlers; see :meth:`collect`."""
        return self.collect().handlers


def _check_text(decorator: str, given: object, wanted: str) -> None:
    """Refuse ``@module.worker`` without its call, which would silently register nothing."""
    if not isinstance(given, str):
        raise ModuleError(f"module.{decorator}: the first argument is the {wanted}, not {given!r}.")


def _parse_options(topic: str, options: object) -> WorkerOptions:
    if options is None:
        return WorkerOptions()
    if isinstance(options, WorkerOptions):
        return options
    try:
        return WorkerOptions.model_validate(options)
    except ValidationError as error:
        raise ModuleError(
            f"options of the handler for {topic!r}: {describe_options(error)}"
        ) from None
