"""``create_app``: the Celery app that runs a deployment's handlers.

Nothing is started and no connection is made by creating an app: the embedded servers start when a
broker connection or the result backend is first needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.signals import (
    beat_embedded_init,
    beat_init,
    worker_process_init,
    worker_process_shutdown,
)
from kombu.utils.url import maybe_sanitize_url

from convotic_celery.configuration import (
    celery_configuration,
    check_broker,
    describe_place,
    result_backend_url,
    store_url,
)
from convotic_celery.context.database import SyncDatabase
from convotic_celery.context.services import Services, ServicesHook
from convotic_celery.context.store import Store
from convotic_celery.dead_letters import DeadLetters
from convotic_celery.dead_letters.deployment import Deployment
from convotic_celery.dead_letters.index import Index
from convotic_celery.dead_letters.recorder import Recorder
from convotic_celery.modules import load_modules
from convotic_celery.plugins import find_dead_letter_hook, plug_in_services
from convotic_celery.runtime.delivery.attempts import AttemptLog
from convotic_celery.runtime.delivery.last_outcomes import LastOutcomes
from convotic_celery.runtime.delivery.payload import register_serializer
from convotic_celery.runtime.delivery.policy import HandlerPolicy
from convotic_celery.runtime.delivery.replays import ReplayTokens
from convotic_celery.runtime.execution.canvas import CeleryCanvas
from convotic_celery.runtime.execution.lifespans import Lifespans, begin_all
from convotic_celery.runtime.execution.task import HandlerTask
from convotic_celery.runtime.locks.key_lock import KeyStore
from convotic_celery.runtime.publish import HandlerPublisher, SessionPublisher
from convotic_celery.runtime.schedule.beat import PublishTask, log_schedules
from convotic_celery.runtime.worker.binding import make_execution, make_task, queue_spec
from convotic_celery.runtime.worker.pauses import Pauses
from convotic_celery.runtime.worker.revokes import Revokes
from convotic_celery.sdk.workflow import CanvasStarter
from convotic_celery.settings import Settings
from convotic_pubsub.celery.envelope import celery_queue
from convotic_pubsub.options import parse_options
from convotic_pubsub.registry import session_for

if TYPE_CHECKING:
    from celery import result as results

    from convotic_celery.dead_letters.recorder import DeadLetterHook
    from convotic_celery.sdk.handler import HandlerDefinition
    from convotic_celery.sdk.route import RouteDefinition
    from convotic_celery.sdk.schedule import ScheduleDefinition
    from convotic_pubsub.options import TransportOptions
    from convotic_pubsub.queue import QueueSpec
    from convotic_pubsub.session import Session

__all__ = ["ConvoticApp", "create_app"]

#: Derived from the settings in every process, so not sent along when a child is started.
_DERIVED = frozenset({"beat_schedule", "broker_transport_options", "task_queues"})


def create_app(
    settings: Settings | None = None,
    *,
    services: ServicesHook | None = None,
    set_as_current: bool = True,
) -> ConvoticApp:
    """Load the modules and return the app with their handlers as tasks.

    Args:
        settings: None reads them from the environment.
        services: Plugs in services of your own, after what CONVOTIC_SERVICES names; a function at
            module level, for a spawned child calls it too.
        set_as_current: False leaves ``celery.current_app`` to another app of this process.

    Raises:
        ConfigurationError: A setting is wrong.
        ModuleError: A module can't be loaded.
    """
    settings = settings or Settings()
    loaded = load_modules(settings)
    return ConvoticApp(
        settings,
        [handler for module in loaded for handler in module.handlers],
        routes=[route for module in loaded for route in module.routes],
        schedules=[schedule for module in loaded for schedule in module.schedules],
        services_hook=services,
        set_as_current=set_as_current,
    )


class ConvoticApp(Celery):
    """A Celery app whose tasks include one for each handler. Made by :func:`create_app`.

    Ordinary tasks (``@app.task``, also ``async def``) work beside them, on Celery's queue
    ``celery``.
    """

    log_cls = "convotic_celery.runtime.worker.logs:WorkerLogging"
    events_cls = "convotic_celery.runtime.worker.events:WorkerEvents"
    task_cls = "convotic_celery.runtime.execution.task:ConvoticTask"
    _tasks: dict[str, Any]

    def __init__(
        self,
        settings: Settings,
        definitions: Iterable[HandlerDefinition],
        *,
        routes: Iterable[RouteDefinition] = (),
        schedules: Iterable[ScheduleDefinition] = (),
        services_hook: ServicesHook | None = None,
        **kwargs: Any,
    ) -> None:
        register_serializer()
        self.settings = settings
        self._services_hook = services_hook
        self.definitions = tuple(definitions)
        self.routes = tuple(routes)
        self.schedules = tuple(schedules)
        self.store = Store(store_url(settings), timeout_seconds=settings.store_timeout)
        self.keys = KeyStore(self.store, key_prefix=settings.store_prefix)
        #: How the last deliveries of each handler ended.
        self.last_outcomes = LastOutcomes(
            self.store, key_prefix=settings.store_prefix, keep=settings.last_outcomes
        )
        self.revokes = Revokes(self.store, key_prefix=settings.store_prefix)
        self.pauses = Pauses(self.store, key_prefix=settings.store_prefix)
        self.lifespans = Lifespans()
        self.attempts = AttemptLog(self.store, key_prefix=settings.store_prefix)
        replays = ReplayTokens(key_prefix=settings.store_prefix)
        index = Index(
            SyncDatabase(self.store),
            key_prefix=settings.store_prefix,
            retention_seconds=settings.dead_letter_retention,
        )
        deployment = self._describe_deployment(replays)
        #: Lists, groups, shows, replays and deletes dead letters.
        self.dead_letters = DeadLetters(deployment, index)
        self._recorder = Recorder(index, deployment, self._find_dead_letter_hook)
        super().__init__("convotic", **kwargs)
        specs = {definition.queue: self._queue_spec(definition) for definition in self.definitions}
        self.conf.update(
            celery_configuration(
                settings, self.definitions, self.schedules, specs, self._recorder.note
            )
        )
        check_broker(*self._broker_parameters())
        self.publisher = SessionPublisher(
            self._broker_parameters,
            self.definitions,
            may_create=settings.provision == "create" or settings.create_missing_topics,
            prefix=settings.prefix,
            place=describe_place(settings, self.definitions),
        )
        self.services = self._make_services()
        if settings.tracing:
            self._set_up_tracing()
        self._add_handlers(replays)
        self._add_to_celery()

    def _describe_deployment(self, replays: ReplayTokens) -> Deployment:
        """Return what dead letters are replayed into."""
        settings = self.settings
        return Deployment(
            self.definitions,
            specs=lambda: self._queue_specs,
            session=self.open_session,
            publish=lambda message: self.publisher.publish(message),  # noqa: PLW0108 - made later
            database=SyncDatabase(self.store),
            tokens=replays,
            payload=settings.dead_letter_payload,
            publish_timeout_seconds=settings.publish_timeout,
        )

    def _queue_spec(self, definition: HandlerDefinition) -> QueueSpec:
        return queue_spec(
            definition,
            HandlerPolicy(definition, self.attempts),
            prefix=self.settings.prefix,
            dead_letter_retention_seconds=int(self.settings.dead_letter_retention),
            on_dead_letter=partial(self._recorder.note, definition.queue),
        )

    def _make_services(self) -> Services:
        """Return what contexts are made of: ours, or those that were plugged in."""
        settings = self.settings
        services = Services(
            self.store,
            self.publisher,
            key_prefix=settings.store_prefix,
            publish_timeout_seconds=settings.publish_timeout,
            max_value_bytes=settings.storage_max_value_bytes,
            current_trace=_current_trace if settings.tracing else dict,
            sent_messages_topic=(
                None if settings.sent_messages_topic == "off" else settings.sent_messages_topic
            ),
        )
        services.provide(CanvasStarter, CeleryCanvas(self, services))
        plug_in_services(services, settings.services, self._services_hook)
        return services

    def _add_handlers(self, replays: ReplayTokens) -> None:
        """Make a task of each handler."""
        publisher = HandlerPublisher(self.publisher, self.settings.publish_timeout)
        for definition in self.definitions:
            execution = make_execution(
                definition, self.services, self.keys, self.attempts, replays, self.lifespans
            )
            self._tasks[definition.queue] = make_task(execution, publisher)

    def _add_to_celery(self) -> None:
        """Add what Celery's programs run beside tasks: steps, signals, Flower's tab."""
        self.steps["worker"].add("convotic_celery.telemetry.step:Telemetry")
        if any(schedule.topic for schedule in self.schedules):
            self.register_task(PublishTask())
        if "flower.urls" in sys.modules:  # Celery's command line loads it
            from convotic_celery.flower import install  # noqa: PLC0415 - tornado, only there

            install()
        beat_init.connect(self._log_schedules)
        beat_embedded_init.connect(self._log_schedules)
        if any(definition.lifespan for definition in self.definitions):
            worker_process_init.connect(self._begin_lifespans)
            worker_process_shutdown.connect(self._leave_lifespans)

    @property
    def total_concurrency(self) -> int:
        """How many messages one worker process runs at once: the sum over its handlers."""
        return max(1, sum(d.options.slots for d in self.definitions))

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 - Celery's name
        """The worker program of this app."""
        return self.subclass_with_self("convotic_celery.runtime.worker.worker:HandlerWorker")  # type: ignore[arg-type]  # a name, so that it is imported in workers only

    @cached_property
    def AsyncResult(self) -> Any:  # noqa: N802 - Celery's name
        """The class of this app's results, which knows the tasks of handlers."""
        return self.subclass_with_self(
            "convotic_celery.runtime.execution.handler_result:TaskResult"  # type: ignore[arg-type]  # as above
        )

    def describe_servers(self) -> Any:
        """Return what is embedded, as ``embedded.EmbeddedServers``, after starting it."""
        from convotic_celery.embedded import describe_servers  # noqa: PLC0415 - only workers ask

        return describe_servers(self.settings)

    def connect_publisher(self) -> None:
        """Connect to the broker, so that the next publish doesn't have to; idempotent.

        Blocks, for seconds where the embedded emulator has to be started. To be called before
        publishing on an event loop outside a worker.
        """
        if isinstance(self.services.publisher, SessionPublisher):
            self.open_session()

    def transport_options(self) -> TransportOptions:
        """Return the options of this app's connections, with its handlers' queues."""
        return parse_options(*self._broker_parameters())

    def open_session(self) -> Session:
        """Return the session that this process's publishers and consumers share.

        Blocks, for seconds where the embedded emulator has to be started.

        Raises:
            BrokerUnavailable: The server can't be reached.
        """
        return session_for(*self._broker_parameters())

    def limit_concurrency(self, limit: int) -> None:
        """Pull at most ``limit`` messages of each handler; for a worker whose pool is bounded.

        To be called before the worker connects.
        """
        options = self.conf.broker_transport_options
        queues = {
            name: replace(spec, concurrency=min(spec.concurrency, limit))
            for name, spec in options["queues"].items()
        }
        for task in self.tasks.values():
            if isinstance(task, HandlerTask) and task.execution.batches is not None:
                task.execution.batches.bound = limit
        self.conf.broker_transport_options = {**options, "queues": queues}
        self.publisher.forget_session()

    def send_task(self, name: str, *args: Any, **kwargs: Any) -> results.AsyncResult[Any]:
        """Send a task by name; a handler gets a raw message (see ``HandlerTask.apply_async``)."""
        task = self._tasks.get(name)
        if isinstance(task, HandlerTask):
            return task.apply_async(*args, **kwargs)
        result: results.AsyncResult[Any] = super().send_task(name, *args, **kwargs)
        return result

    def bugreport(self) -> str:
        """Return what ``celery report`` prints; the result backend is the store's server."""
        report: str = super().bugreport()
        url = self.settings.redis_url
        where = "embedded" if url is None else maybe_sanitize_url(url.get_secret_value())
        return report.replace("results:disabled", f"results:{where}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for a spawned child: it loads settings and modules itself."""
        changes: Mapping[str, Any] = self.__reduce_keys__()["changes"]
        kept = {name: value for name, value in changes.items() if name not in _DERIVED}
        return _rebuild, (self.settings, kept, self._services_hook)

    @cached_property
    def _queue_specs(self) -> Mapping[str, QueueSpec]:
        """Return the specifications of all queues that have dead letters, handlers' first."""
        options = self.transport_options()
        ordinary = [q.name for q in self.conf.task_queues if q.name not in options.queues]
        return {**options.queues, **{name: celery_queue(name, options) for name in ordinary}}

    def _find_dead_letter_hook(self) -> DeadLetterHook | None:
        named = self.settings.dead_letter_hook
        return find_dead_letter_hook(named) if named else None

    def _set_up_tracing(self) -> None:
        """Have publishes and ordinary tasks traced; handlers and routes have middleware for it."""
        from convotic_celery.telemetry import tracing  # noqa: PLC0415 - slow, and off by default

        tracing.set_up_tracing()
        tracing.trace_tasks()
        self.publisher.tracing = tracing.PublishTracing()

    def _log_schedules(self, **_: Any) -> None:
        log_schedules(self.schedules)

    def _begin_lifespans(self, **_: Any) -> None:
        """Enter the modules' lifespans in a prefork child that starts."""
        begin_all(self.lifespans, self.definitions)

    def _leave_lifespans(self, **_: Any) -> None:
        """Leave the modules' lifespans in a prefork child that ends."""
        self.lifespans.close()

    def _get_backend(self) -> Any:
        """Return the result backend: the one configured, else the store's server."""
        if not self.conf.result_backend:
            self.conf.update(result_backend=result_backend_url(self.store.resolve_url()))
        return super()._get_backend()  # type: ignore[misc]  # private in celery-types

    def _broker_parameters(self) -> tuple[str, Mapping[str, Any]]:
        """Return the URL and the transport options that this app's connections have."""
        return (
            self.conf.broker_write_url or self.conf.broker_url,
            self.conf.broker_transport_options,
        )


def _current_trace() -> Mapping[str, str]:
    """Return the trace context of what runs here."""
    from convotic_celery.telemetry.tracing import current_trace  # noqa: PLC0415 - as above

    return current_trace()


def _rebuild(
    settings: Settings, changes: Mapping[str, Any], services: ServicesHook | None
) -> ConvoticApp:
    """Make the app again in a spawned child."""
    app = create_app(settings, services=services)
    app.conf.update(changes)
    return app
