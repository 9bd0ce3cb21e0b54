"""The worker program: Celery's, with our pool's rules and a table of what it consumes."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import click
from billiard import cpu_count
from celery.apps.worker import Worker
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.concurrency.solo import TaskPool as SoloPool
from celery.concurrency.thread import TaskPool as CeleryThreadPool
from celery.exceptions import ImproperlyConfigured
from celery.signals import worker_shutting_down
from celery.utils.text import str_to_list
from click.core import ParameterSource
from kombu.utils.imports import symbol_by_name

from convotic_celery.errors import ConfigurationError, ConvoticError
from convotic_celery.log import FIELDS_ATTRIBUTE
from convotic_celery.runtime import celery_internals
from convotic_celery.runtime.delivery.counters import count_overdue, outcomes
from convotic_celery.runtime.delivery.observing import observers
from convotic_celery.runtime.execution.task import HandlerTask
from convotic_celery.runtime.pool.gc_tuning import tune_gc
from convotic_celery.runtime.pool.pool import TaskPool
from convotic_celery.runtime.pool.thread_pool import ThreadPool
from convotic_celery.runtime.schedule.delayed_publisher import DelayedPublisher
from convotic_celery.runtime.worker import commands
from convotic_celery.runtime.worker.banner import describe_start
from convotic_celery.runtime.worker.last_runs import LastRuns, describe_runs
from convotic_celery.runtime.worker.run_lines import RunLines
from convotic_pubsub.errors import PubsubTransportError

if TYPE_CHECKING:
    from convotic_celery.context.services import Services
    from convotic_celery.runtime.delivery.last_outcomes import LastOutcomes
    from convotic_celery.runtime.execution.lifespans import Lifespans
    from convotic_celery.runtime.worker.pauses import Pauses
    from convotic_celery.runtime.worker.revokes import Revokes
    from convotic_celery.sdk.handler import HandlerDefinition
    from convotic_celery.settings import Settings

__all__ = ["HandlerWorker"]

logger = logging.getLogger(__name__)

#: Imported for what it registers.
_COMMANDS = commands

_GREEN_POOLS = frozenset({"celery.concurrency.gevent", "celery.concurrency.eventlet"})

#: What still runs so long before the grace is over is handed back: that has to be confirmed.
_HAND_BACK_SECONDS = 2.0

#: A SIGTERM so soon after the first is the same one: process groups and supervisors repeat it.
_SAME_SIGNAL_SECONDS = 1.0

_GIVEN = {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}


class HandlerApp(Protocol):
    """What this needs of :class:`convotic_celery.app.ConvoticApp`."""

    settings: Settings
    services: Services
    definitions: tuple[HandlerDefinition, ...]
    pauses: Pauses
    revokes: Revokes
    last_outcomes: LastOutcomes
    lifespans: Lifespans
    amqp: Any
    control: Any
    log: Any
    tasks: Any

    @property
    def total_concurrency(self) -> int:
        """How many messages one worker process runs at once."""
        ...

    def limit_concurrency(self, limit: int) -> None:
        """Pull at most ``limit`` messages of each handler."""
        ...


class HandlerWorker(Worker):
    """``app.Worker``. Made for each start; knows its app's handlers."""

    class Blueprint(Worker.Blueprint):
        """Celery's steps, and ours."""

        default_steps = {  # noqa: RUF012 - Celery's
            *Worker.Blueprint.default_steps,
            "convotic_celery.runtime.worker.lifespan_step:OpenLifespans",
        }

        def start(self, parent: Any) -> None:
            """Start and run all steps; an error in settings or topics is one line.

            Celery would log an "unrecoverable error" with a traceback of its own machinery.
            """
            try:
                super().start(parent)
            except (ConvoticError, PubsubTransportError) as error:
                parent.has_failed = True
                logger.critical("The worker can't go on: %s", error)
                logger.debug("Where that was", exc_info=True)
                raise SystemExit(1) from error

    app: HandlerApp
    concurrency: Any
    consumer: Any
    pool_cls: type[Any]
    #: Celery's: frees one of the pool's slots; None for a pool without any.
    _quick_release: Any = None
    prefetch_multiplier: int
    hostname: str
    loglevel: int
    _run_lines: RunLines | None = None
    #: It ends for a reason that was logged: what fails because of that need not be.
    has_failed = False

    def setup_defaults(  # type: ignore[override]  # Celery's options pass through
        self, *args: Any, **kwargs: Any
    ) -> None:
        """Resolve Celery's options, then what follows from the pool that was chosen."""
        try:
            self.app.settings.refuse_embedded_where_wrong()
        except ConfigurationError as error:  # before anything starts, and without a traceback
            raise click.ClickException(str(error)) from None
        if _is_default("loglevel"):
            kwargs["loglevel"] = logging.getLevelName(self.app.settings.log_level)
        if kwargs.get("pool_start_method") == "fork":
            logger.warning("Using spawn instead of fork: gRPC does not survive a fork")
        kwargs["pool_start_method"] = "spawn"
        celery_internals.spare_suspended_frames()
        super().setup_defaults(*args, **kwargs)
        self.app.control.mailbox.node_cls = commands.AnsweringNode
        self.delayed_publisher = DelayedPublisher(self.app.services)
        self.pool_cls = choose_pool(self.pool_cls)
        if self.pool_cls.__module__ in _GREEN_POOLS:
            raise click.UsageError(
                f"The pool {self.pool_cls.__module__.rpartition('.')[2]} is not supported: the "
                "transport needs real threads. Leave -P out (async handlers run on an event loop), "
                "or use prefork, threads or solo."
            )
        if issubclass(self.pool_cls, TaskPool) and not self.concurrency:
            self.concurrency = self.app.total_concurrency
            # Each queue has a limit of its own, in the transport; a common one would let a slow
            # handler starve the others.
            self.prefetch_multiplier = 0
        else:
            self._bound_concurrency()
        if issubclass(self.pool_cls, PreforkPool):
            self._set_time_limits()

    def prepare_args(self, **kwargs: Any) -> dict[str, Any]:
        """Leave gossip off unless it is wanted: with it every worker gets the events of all."""
        args: dict[str, Any] = super().prepare_args(**kwargs)
        return args if self.app.settings.gossip else {**args, "without_gossip": True}

    def setup_queues(self, include: Any, exclude: Any = None) -> None:
        """Select what ``-Q`` and ``-X`` name; an unknown name is an error of the command line."""
        try:
            super().setup_queues(include, exclude)
        except ImproperlyConfigured as error:
            known = sorted(self.app.amqp.queues)
            given: list[str | list[str]] = [each for each in (include, exclude) if each]
            named = {
                name
                for each in given
                for name in (str_to_list(each) if isinstance(each, str) else each)
            }
            unknown = ", ".join(sorted(named - set(known))) or str(error)
            raise click.UsageError(
                f"There is no queue {unknown}. The queues are: {', '.join(known)}."
            ) from None
        self._refuse_batches_of_one()
        self.app.pauses.deselect(self.app.amqp.queues)
        self.app.revokes.recall()

    def _refuse_batches_of_one(self) -> None:
        """Refuse a handler of batches where each process has one message at a time."""
        if not issubclass(self.pool_cls, PreforkPool | SoloPool):
            return
        consumed = self.app.amqp.queues.consume_from
        batched = [d.queue for d in self.app.definitions if d.options.batch and d.queue in consumed]
        if batched:
            raise click.UsageError(
                f"{', '.join(batched)}: a handler with batch= needs a pool that has many messages "
                "in one process. Leave -P out, use -P threads, or exclude the queue with -X."
            )

    def setup_logging(self, colorize: Any = None) -> Any:
        """Set up logging, and have a line for each run."""
        handled = super().setup_logging(colorize)
        if getattr(self.app.log, "has_run_lines", False):
            logs_successes = self.app.settings.log_runs == "all" and self.loglevel <= logging.INFO
            self._run_lines = RunLines(
                successes=logs_successes, whole_tracebacks=self.loglevel <= logging.DEBUG
            )
            observers.add(self._run_lines)
        return handled

    def emit_banner(self) -> None:
        """Say what is consumed and where everything is: for people once, else as a log record."""
        banner = describe_start(self)
        if self.app.log.is_for_people:
            print(f"\n{banner.as_text()}", file=sys.__stdout__, flush=True)
        else:
            logger.info("%s starts", self.hostname, extra={FIELDS_ATTRIBUTE: banner.as_fields()})

    def stats(self) -> dict[str, Any]:
        """Return what ``inspect stats`` and Flower show, and how many messages ended how."""
        ours = {"outcomes": outcomes.snapshot(), "overdue": count_overdue()}
        stats: dict[str, Any] = {**super().stats(), "convotic": ours}
        if "broker" in stats:  # kombu puts the options in as they are: objects, functions, secrets
            options = stats["broker"].get("transport_options") or {}
            stats["broker"] = {**stats["broker"], "transport_options": describe_options(options)}
        return stats

    def _process_task(self, req: Any) -> None:
        """Give a request to the pool; one that raises on its way there gives its slot back."""
        try:
            super()._process_task(req)  # type: ignore[misc]  # not in celery-types
        except Exception:
            if self._quick_release is not None:
                self._quick_release()
            raise

    def install_platform_tweaks(self, worker: Any) -> None:
        """Install Celery's signal handlers, and have a second SIGTERM stop the worker now."""
        super().install_platform_tweaks(worker)
        worker_shutting_down.connect(self._expect_second_sigterm)

    def _expect_second_sigterm(self, sig: str, how: str, **_: Any) -> None:
        """After a SIGTERM (in its handler): to Celery alone, every further one means the same."""
        if (sig, how) != ("SIGTERM", "Warm"):
            return
        first = time.monotonic()

        def stop_now(number: int, frame: Any) -> None:
            if time.monotonic() - first < _SAME_SIGNAL_SECONDS:
                return
            celery_internals.install_cold_stop(self)
            cold: Any = signal.getsignal(number)
            celery_internals.install_cold_stop(self, is_last=True)
            cold(number, frame)

        signal.signal(signal.SIGTERM, stop_now)
        grace = self.app.settings.shutdown_grace
        if grace is not None:
            end = threading.Timer(grace - _HAND_BACK_SECONDS, self._hand_back, [stop_now])
            end.daemon = True
            end.start()

    def _hand_back(self, stop_now: Any) -> None:
        """Stop what still runs, as a second SIGTERM does; on a thread of its own."""
        if signal.getsignal(signal.SIGTERM) is stop_now:
            logger.warning(
                "The grace is nearly over: handing back %s",
                describe_runs(time.time()) or "what is left",
                extra={"action": "grace_over"},
            )
            os.kill(os.getpid(), signal.SIGTERM)

    def start(self) -> None:
        """Run until the worker is stopped; threads that a cold stop has left end here."""
        super().start()
        pool = getattr(self, "pool", None)
        if isinstance(pool, ThreadPool) and pool.has_left_threads:
            leave(self.exitcode or 0)

    def on_consumer_ready(self, consumer: Any) -> None:
        """Announce the worker; all code it runs is loaded by now, and its subscriptions exist."""
        self.app.pauses.catch_up(consumer)
        if self.app.last_outcomes.is_on:
            observers.add(self.app.last_outcomes)
            self.app.last_outcomes.start()
        tune_gc()
        self.delayed_publisher.start()
        super().on_consumer_ready(consumer)

    def on_stopped(self) -> None:
        """Send the events of runs that ended while the pool was stopping, then disconnect.

        Celery buffers them for its event loop, which has ended.
        """
        dispatcher = getattr(self.consumer, "event_dispatcher", None)
        if dispatcher is not None and dispatcher.enabled:
            try:
                dispatcher.flush()
            except Exception:
                logger.warning("The last events could not be sent", exc_info=True)
        self.delayed_publisher.stop()
        self.app.lifespans.close()
        if self._run_lines is not None:
            observers.remove(self._run_lines)
        super().on_stopped()

    def _shutdown(self, warm: bool = True) -> None:
        """Stop; while running handlers finish, say which."""
        last_runs = LastRuns()
        if warm:
            last_runs.start()
        try:
            super()._shutdown(warm=warm)  # type: ignore[misc]  # not in celery-types
        finally:
            last_runs.stop()

    def _bound_concurrency(self) -> None:
        """Pull at most what the pool can run: ``-c`` bounds each handler, and all together."""
        if issubclass(self.pool_cls, SoloPool):
            self.concurrency = 1
        self.prefetch_multiplier = max(1, self.prefetch_multiplier)
        if not celery_internals.has_auto_concurrency(self.concurrency):
            self.concurrency = int(self.concurrency or cpu_count())
            self.app.limit_concurrency(self.concurrency)

    def _set_time_limits(self) -> None:
        """Let prefork end a handler at its ack deadline: softly if it is plain code, then hard.

        An async handler ends itself there; for it only the hard limit remains.
        """
        for task in self.app.tasks.values():
            if isinstance(task, HandlerTask):
                options = task.definition.options
                cls: Any = type(task)
                cls.time_limit = options.run_limit + max(0.5, options.deadline_grace / 2)
                cls.soft_time_limit = None if task.runs_on_loop else options.run_limit


def _is_default(option: str) -> bool:
    """Say whether an option of Celery's command line was not given."""
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(option) is ParameterSource.DEFAULT


def describe_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return transport options as JSON can carry them, without credentials."""
    shown: dict[str, Any] = {
        name: value
        for name, value in options.items()
        if value is None or isinstance(value, str | int | float | bool)
    }
    return {**shown, "queues": sorted(options.get("queues") or ())}


def leave(exitcode: int) -> NoReturn:
    """End the process as the interpreter does, but without waiting for its threads."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(exitcode)


def choose_pool(configured: Any) -> type[Any]:
    """Return the pool's class; an explicit ``-P prefork`` is prefork.

    Celery's command line takes "prefork" for "not chosen" and puts the configured pool (ours) in
    its place (``celery.bin.worker.WorkersPool.convert``), so the command line is asked whether
    somebody did.
    """
    pool = celery_internals.pool_class(configured)
    if pool is CeleryThreadPool:
        return ThreadPool
    prefork: type[Any] = PreforkPool
    if not issubclass(pool, TaskPool):
        return pool
    context = click.get_current_context(silent=True)
    if context is None or context.get_parameter_source("pool") not in _GIVEN:
        return pool
    custom = celery_internals.custom_pool_name()
    # -P custom, and that names ours?
    return pool if custom and symbol_by_name(custom) is pool else prefork
