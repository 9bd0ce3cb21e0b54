"""What Celery and Flower must be told of this transport, where they are loaded at all.

Both know brokers by a closed list of names. :func:`install` adds ours to those that are in this
process; it imports neither.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from convotic_pubsub.client.backlog_size import BacklogSize

__all__ = ["FlowerBroker", "install", "on_worker_stopping"]

DRIVER_TYPE = "pubsub"


def install() -> None:
    """Make mingle, gossip and Flower's Broker page take ``pubsub://``. Idempotent.

    Called whenever a transport is made: each of the three makes one before it looks.
    """
    for module, name in (
        ("celery.worker.consumer.mingle", "Mingle"),
        ("celery.worker.consumer.gossip", "Gossip"),
    ):
        step = getattr(sys.modules.get(module), name, None)
        if step is not None:
            step.compatible_transports.add(DRIVER_TYPE)
    views: Any = sys.modules.get("flower.views")
    original = getattr(views, "Broker", None)
    if original is not None and not hasattr(original, "of_other_brokers"):
        views.Broker = _BrokerFactory(original)


def on_worker_stopping(method: Callable[..., None]) -> None:
    """Have a bound method called, for as long as its object lives, when a worker is told to stop.

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
        from convotic_pubsub.registry import session_for  # noqa: PLC0415  it brings gRPC

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
    row |= {"consumers": None, "idle_since": None}
    if depth is None:
        return row
    row["messages"] = depth.messages
    if depth.leased is not None:
        row["messages_unacknowledged"] = depth.leased
        row["messages_ready"] = depth.messages - depth.leased
    if depth.figures_age_seconds:
        minutes = max(1, round(depth.figures_age_seconds / 60))
        row["messages"] = f"{depth.messages} ({minutes} min ago)"
    return row
