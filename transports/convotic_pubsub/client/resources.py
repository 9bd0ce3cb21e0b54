"""Topics, subscriptions and their backlogs, for threads that may block."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from convotic_pubsub.client.backlog_size import BacklogSize, BacklogSizes
from convotic_pubsub.client.inspection import (
    Inspection,
    find_waiting,
    unfiltered_subscriptions,
)
from convotic_pubsub.names import subscription_path

if TYPE_CHECKING:
    import concurrent.futures

    from convotic_pubsub.client.broker import Broker
    from convotic_pubsub.client.provisioning import Provisioner
    from convotic_pubsub.options import TransportOptions
    from convotic_pubsub.queue import QueueSpec

__all__ = ["AskParent", "Call", "Resources"]

#: Runs a coroutine on the I/O thread and returns its result, within so many seconds.
Call: TypeAlias = Callable[[Coroutine[Any, Any, Any], float | None], Any]
#: Sends a method's name and arguments to the process that this one was forked from.
AskParent: TypeAlias = "Callable[..., concurrent.futures.Future[Any]]"

#: A purge of a backlog of any length ends after this; what is left stays.
_PURGE_SECONDS = 300.0


class Resources:
    """What exists on the server for the queues of one session.

    Thread-safe; every method blocks for a round trip or more, and must not be called on the I/O
    thread. All raise :class:`BrokerUnavailable` when the server does not answer in time.
    """

    def __init__(
        self, call: Call, options: TransportOptions, broker: Broker, provisioner: Provisioner
    ) -> None:
        self._call = call
        self._options = options
        self._broker = broker
        self._provisioner = provisioner
        self._backlog_sizes = BacklogSizes(broker, options)
        #: In a forked child: the parent does what the child can't.
        self.ask_parent: AskParent | None = None
        #: Names of the queues that this process has asked for.
        self.declared: set[str] = set()

    def ensure(self, spec: QueueSpec, *, ephemeral: bool = False) -> None:
        """Create or verify a queue's topics and subscriptions; see :meth:`Provisioner.ensure`.

        An ephemeral queue is created in any provision mode: only its own process can do it.
        """
        if self.ask_parent is not None and not ephemeral:
            self.ask_parent("ensure", self._by_name(spec)).result(60)
        else:
            self._call(self._provisioner.ensure(spec, ephemeral=ephemeral), 60)
        self.declared.add(spec.queue)

    def exists(self, spec: QueueSpec) -> bool:
        """Ask the server whether a queue's subscription exists."""
        if self.ask_parent is not None:
            return bool(self.ask_parent("exists", self._by_name(spec)).result(30))
        return bool(self._call(self._provisioner.exists(spec), 30))

    def _by_name(self, spec: QueueSpec) -> QueueSpec | str:
        """Return what a parent knows a queue by; policies of the options' queues don't pickle."""
        return spec.queue if spec.queue in self._options.queues else spec

    def delete(self, spec: QueueSpec, *, with_topic: bool = True) -> None:
        """Delete a queue's subscription and its topic; missing ones are no error."""
        self._call(self._provisioner.delete(spec, topic=with_topic), 60)

    def delete_subscription(self, name: str) -> None:
        """Delete a subscription; a missing one is no error."""
        self._call(self._provisioner.delete_subscription(name), 20)

    def list_subscriptions(self, topic: str) -> list[str]:
        """Return the short names of a topic's subscriptions in this project."""
        names: list[str] = self._call(self._provisioner.list_topic_subscriptions(topic), 60)
        return names

    def unfiltered_subscriptions(self, topic: str, attribute: str) -> list[str]:
        """Return the subscriptions of a topic whose filter does not look at an attribute."""
        names: list[str] = self._call(
            unfiltered_subscriptions(
                self._broker, self._provisioner, self._options.project, topic, attribute
            ),
            60,
        )
        return names

    def inspect(self, subscription: str) -> Inspection:
        """Return what leases a subscription's messages for a look; see :class:`Inspection`."""
        path = subscription_path(self._options.project, subscription)
        return Inspection(self._call, self._broker, path)

    def find_waiting(self, subscriptions: Iterable[str]) -> set[str]:
        """Look into subscriptions and return those that have a message now.

        A message that is found is given back at once; that counts as a delivery.
        """
        paths = {subscription_path(self._options.project, name): name for name in subscriptions}
        found: set[str] = self._call(find_waiting(self._broker, list(paths)), 60)
        return {paths[path] for path in found}

    def purge(self, spec: QueueSpec) -> int:
        """Acknowledge what is available now, unread; return how many messages that were.

        Raises:
            BrokerUnavailable: not done within five minutes; what was acknowledged stays so.
        """
        return int(self._call(self._provisioner.purge(spec), _PURGE_SECONDS))

    def backlog_sizes(self, subscriptions: Iterable[str]) -> dict[str, BacklogSize]:
        """Return how many messages subscriptions have, where that is known."""
        sizes: dict[str, BacklogSize] = self._call(self._backlog_sizes.read(subscriptions), 30)
        return sizes
