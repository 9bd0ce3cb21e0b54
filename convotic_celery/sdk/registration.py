"""What a module registers: :class:`Sdk`, the argument of its ``register`` function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from convotic_celery.errors import DuplicateHandler, DuplicateRoute, ModuleError
from convotic_celery.names import schedule_topic, workflow_topic
from convotic_celery.sdk.handler import HandlerDefinition, define_handler
from convotic_celery.sdk.middleware import RouteMiddleware, WorkerMiddleware, check_middleware
from convotic_celery.sdk.option_errors import describe_options
from convotic_celery.sdk.options import WorkerOptions
from convotic_celery.sdk.route import RouteDefinition, define_route
from convotic_celery.sdk.schedule import ScheduleDefinition, define_schedule
from convotic_celery.sdk.workflow import build_workflow

if TYPE_CHECKING:
    from datetime import timedelta

    from convotic_celery.sdk.decorated import RouteHandler, WorkerHandler
    from convotic_celery.sdk.lifespan import Lifespan
    from convotic_celery.sdk.workflow import WorkflowStep

__all__ = ["Sdk", "collect"]


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
        """Have Celery's beat publish a message periodically: to ``topic``, or for ``handler``.

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

        Raises HandlerSignatureError, or a ModuleError that names the rule.
        """
        if (topic is None) == (handler is None):
            raise ModuleError("a schedule needs either topic= or handler=.")
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


def collect(
    decorated: Sdk, register: Callable[[Sdk], None] | None, lifespan: Lifespan | None
) -> Sdk:
    """Return what decorators and ``register`` have registered, with the lifespan."""
    sdk = Sdk(decorated._module, decorated._version)
    sdk._handlers.update(decorated._handlers)
    sdk._routes.update(decorated._routes)
    sdk._schedules.update(decorated._schedules)
    sdk._middleware.extend(decorated._middleware)
    if register is not None:
        register(sdk)
    sdk._surround(lifespan)
    return sdk


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
