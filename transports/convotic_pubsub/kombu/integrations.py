"""What Celery and Flower must know of this transport, where they are loaded at all.

Both know brokers by a closed list of names, and Celery's worker ends by an order that it can't
carry out. :func:`install` changes those that are in this process, once; it imports neither.
:func:`uninstall` undoes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sys
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from convotic_pubsub.age import show_age
from convotic_pubsub.errors import PubsubTransportError
from convotic_pubsub.kombu.monitors import check_events, contain_events, explain_refusals
from convotic_pubsub.registry import session_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from convotic_pubsub.client.backlog_size import BacklogSize

__all__ = [
    "FlowerBroker",
    "install",
    "on_worker_stopping",
    "report_unasked_workers",
    "uninstall",
]

logger = logging.getLogger(__name__)

DRIVER_TYPE = "pubsub"

#: How to undo what is in place, by module and name.
_installed: dict[tuple[str, str], Callable[[], None]] = {}


def install() -> None:
    """Make mingle, gossip, Flower's Broker page and the worker ready for ``pubsub://``. Idempotent.

    Called whenever a transport is made: each of them makes one before it looks.
    """
    for (module, name), patch in _PATCHES.items():
        target = getattr(sys.modules.get(module), name, None)
        if target is not None and (module, name) not in _installed:
            _installed[module, name] = patch(sys.modules[module], target)


def uninstall() -> None:
    """Undo :func:`install`."""
    while _installed:
        _installed.popitem()[1]()


def _allow_driver(_module: Any, step: Any) -> Callable[[], None]:
    """Celery's steps are skipped for transports that they don't know."""
    step.compatible_transports.add(DRIVER_TYPE)
    return lambda: step.compatible_transports.discard(DRIVER_TYPE)


def _say_why_not(_module: Any, step: Any) -> Callable[[], None]:
    """A worker that can never connect (wrong option, gevent's threads) says why in one line."""
    start = step.start

    @functools.wraps(start)
    def start_or_exit(self: Any, consumer: Any) -> None:
        try:
            start(self, consumer)
        except (*consumer.connection_errors, *consumer.channel_errors):
            raise  # Celery tries again
        except PubsubTransportError as error:
            logger.critical("The worker ends: %s", error, extra={"action": "broker_refused"})
            raise SystemExit(1) from None

    step.start = start_or_exit

    def undo() -> None:
        step.start = start

    return undo


def _prepare_mingle(module: Any, step: Any) -> Callable[[], None]:
    """At its start a worker asks the others; one that can't goes on without their answers."""
    disallow, ask = _allow_driver(module, step), step.send_hello

    @functools.wraps(ask)
    def ask_or_log(self: Any, consumer: Any) -> Any:
        try:
            return ask(self, consumer)
        except (OperationalError, PubsubTransportError) as error:
            report_unasked_workers(error)
            return {}

    step.send_hello = ask_or_log

    def undo() -> None:
        disallow()
        step.send_hello = ask

    return undo


def report_unasked_workers(error: Exception) -> None:
    """Log that a worker goes on without the other workers' answers."""
    logger.warning(
        "Other workers can't be asked for revoked tasks: %s",
        str(error) or type(error).__name__,
        extra={"action": "mingle_failed"},
    )


def _show_queues(views: Any, original: Any) -> Callable[[], None]:
    """Flower's factory makes the page's source of figures."""
    views.Broker = _BrokerFactory(original)
    return lambda: setattr(views, "Broker", original)


def _contain_orders(_module: Any, consumer_class: Any) -> Callable[[], None]:
    """Orders to consume a queue run in the worker's loop, which any error ends.

    A queue that can't be consumed would also end the worker when it reconnects.
    """
    add, cancel = consumer_class.add_task_queue, consumer_class.cancel_task_queue

    @functools.wraps(add)
    def add_or_log(self: Any, queue: Any, *args: Any, **kwargs: Any) -> None:
        queues = self.app.amqp.queues
        was_there = isinstance(queue, str) and queue in queues
        if not _obey(self, "consume", queue, functools.partial(add, self, queue, *args, **kwargs)):
            with contextlib.suppress(TypeError):  # no name at all
                if not was_there:
                    queues.pop(queue, None)
                    (queues._consume_from or {}).pop(queue, None)

    @functools.wraps(cancel)
    def cancel_or_log(self: Any, queue: Any) -> None:
        _obey(self, "cancel", queue, functools.partial(cancel, self, queue))

    consumer_class.add_task_queue, consumer_class.cancel_task_queue = add_or_log, cancel_or_log

    def undo() -> None:
        consumer_class.add_task_queue, consumer_class.cancel_task_queue = add, cancel

    return undo


def _obey(consumer: Any, verb: str, queue: Any, order: Callable[[], None]) -> bool:
    """Carry out an order; False for one that was logged and dropped."""
    try:
        if not isinstance(queue, str):
            raise TypeError("a queue's name is a string")  # noqa: TRY301  one way out
        order()
    except consumer.connection_errors:
        raise  # Celery reconnects
    except Exception as error:  # noqa: BLE001  a sender's mistake must not end the worker
        logger.warning(
            "The order to %s queue %r is dropped: %s: %s",
            verb,
            queue,
            type(error).__name__,
            error,
            extra={"action": "control_invalid"},
        )
        return False
    return True


def on_worker_stopping(method: Callable[..., None]) -> None:
    """Have a bound method called, for as long as its object lives, when a worker is about to stop.

    Celery calls it in the handler of the process's signal.
    """
    signals = sys.modules.get("celery.signals")
    if signals is not None:
        signals.worker_shutting_down.connect(method)


class _BrokerFactory:
    """Flower's own factory, and ours for ``pubsub://``."""

    def __init__(self, of_other_brokers: Any) -> None:
        self.of_other_brokers = of_other_brokers

    def __call__(self, broker_url: str, *args: Any, **kwargs: Any) -> Any:
        if broker_url.startswith("pubsub://"):
            return FlowerBroker(broker_url, kwargs.get("broker_options") or {})
        return self.of_other_brokers(broker_url, *args, **kwargs)


class FlowerBroker:
    """What Flower's Broker page and ``/api/queues/length`` show: queues and their dead letters."""

    def __init__(self, broker_url: str, broker_options: dict[str, Any]) -> None:
        self._url = broker_url
        self._options = broker_options

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return a row for each queue and one for its dead-letter subscription, if it has one."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self._read_queues, list(names))

    def _read_queues(self, names: list[str]) -> list[dict[str, Any]]:
        session = session_for(self._url, self._options)
        specs = [session.spec(name) for name in names]
        pairs = [(spec.subscription, spec.dead_letter_topic.rsplit("/", 1)[-1]) for spec in specs]
        depths = session.resources.backlog_sizes([name for pair in pairs for name in pair if name])
        rows: list[dict[str, Any]] = []
        for spec, (subscription, dead_letter) in zip(specs, pairs, strict=True):
            rows.append(_row(spec.queue, depths.get(subscription)))
            if dead_letter:
                rows.append(_row(f"{spec.queue}.dead-letter", depths.get(dead_letter)))
        return rows


def _row(name: str, depth: BacklogSize | None) -> dict[str, Any]:
    """Return a queue as Flower's template wants it; None shows as a dash."""
    row: dict[str, Any] = {"name": name, "messages": None}
    row |= {"messages_unacknowledged": None, "messages_ready": None}
    row |= {"consumers": None, "idle_since": None, "oldest": None}
    if depth is None:
        return row
    row["messages"] = depth.messages
    if depth.oldest_age_seconds is not None:
        row["oldest"] = show_age(depth.oldest_age_seconds)
    if depth.leased is not None:
        row["messages_unacknowledged"] = depth.leased
        row["messages_ready"] = depth.messages - depth.leased
    if depth.figures_age_seconds:
        minutes = max(1, round(depth.figures_age_seconds / 60))
        row["messages"] = f"{depth.messages} ({minutes} min ago)"
    return row


_PATCHES: dict[tuple[str, str], Callable[[Any, Any], Callable[[], None]]] = {
    ("celery.worker.consumer.connection", "Connection"): _say_why_not,
    ("celery.worker.consumer.mingle", "Mingle"): _prepare_mingle,
    ("celery.worker.consumer.gossip", "Gossip"): _allow_driver,
    ("celery.worker.consumer.consumer", "Consumer"): _contain_orders,
    ("celery.events.receiver", "EventReceiver"): check_events,
    ("flower.views", "Broker"): _show_queues,
    ("flower.events", "EventsState"): contain_events,
    ("flower.utils.blocking", "BlockingOperationRunner"): explain_refusals,
}
