"""AMQP's exchanges: which queues a published envelope goes to, and that none goes nowhere.

Durable queues are topics and subscriptions; transient ones live in processes, and are reached by
the control topics. The anonymous exchange ("") reaches a queue by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from convotic_pubsub.celery.envelope import celery_queue
from convotic_pubsub.celery.routing import Binding, is_transient_name
from convotic_pubsub.errors import PublishError, TopicNotFound
from convotic_pubsub.outgoing import IfMissing, OutgoingMessage

if TYPE_CHECKING:
    from convotic_pubsub.celery.bindings import Bindings
    from convotic_pubsub.celery.transient_queues import Publish, TransientQueues
    from convotic_pubsub.client.resources import Resources
    from convotic_pubsub.options import TransportOptions

__all__ = ["Exchange", "Exchanges"]

#: Celery's events, whose publishers must not wait; and the end of remote control's exchanges.
_EVENTS, _REMOTE_CONTROL = "celeryev", ".pidbox"
#: How long a publish waits for an exchange's bindings to be read: with retries, and without.
_READ_SECONDS, _READ_ONCE_SECONDS = 20.0, 5.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange as this process has declared it; else as it may be."""

    name: str
    kind: str = "direct"
    is_durable: bool = True
    is_declared: bool = False

    @property
    def is_remote_control(self) -> bool:
        """Whether only Celery's transient queues are bound to it."""
        return self.name.endswith(_REMOTE_CONTROL)

    @property
    def may_be_unheard(self) -> bool:
        """Whether a message may reach no queue: it is meant for current listeners only."""
        is_broadcast = self.is_declared and (self.kind == "fanout" or not self.is_durable)
        return is_broadcast or self.is_remote_control or self.name == _EVENTS


class Exchanges:
    """Binds queues and routes envelopes, for one session. Thread-safe; methods may block.

    Args:
        options: which queues carry raw messages, and the prefix.
        resources: knows which queues this process has declared.
        publisher: sends.
        bindings: those of durable queues.
        transient: the queues of this process.
    """

    def __init__(
        self,
        options: TransportOptions,
        resources: Resources,
        publisher: Publish,
        bindings: Bindings,
        transient: TransientQueues,
    ) -> None:
        self._options = options
        self._resources = resources
        self._publisher = publisher
        self._bindings = bindings
        self._transient = transient

    def bind(self, exchange: Exchange, queue: str, routing_key: str) -> None:
        """Let a queue get what is published to an exchange with a fitting key, by any process.

        Raises:
            PubsubTransportError: the binding can't be kept.
        """
        binding = Binding(exchange.name, exchange.kind, queue, routing_key)
        if queue in self._transient:
            self._transient.bind(binding)
            if not exchange.is_remote_control and exchange.name != _EVENTS:
                # Others that publish to it don't know that somebody listens.
                self._bindings.add(Binding(exchange.name, exchange.kind, ""))
        elif queue not in self._options.queues:  # handlers' are fed by their own topics
            self._bindings.add(binding)

    def unbind(self, exchange: Exchange, queue: str, routing_key: str) -> None:
        """Undo a binding."""
        binding = Binding(exchange.name, exchange.kind, queue, routing_key)
        if queue in self._transient:
            self._transient.unbind(binding)
        elif queue not in self._options.queues:
            self._bindings.remove(binding)

    def publish(
        self,
        data: bytes,
        exchange: Exchange,
        routing_key: str,
        *,
        is_lossy: bool = False,
        retry: bool = True,
    ) -> None:
        """Publish an envelope to every queue that is bound; return once the server confirms.

        Args:
            data: the envelope.
            exchange: where to.
            routing_key: what bindings are compared with.
            is_lossy: AMQP's delivery mode 1: by way of an exchange it is not waited for.
            retry: False makes one attempt.

        Raises:
            PublishError: no queue gets it, or it was refused, or not confirmed in time.
        """
        if not exchange.name:
            self._send_to_queue(routing_key, data, is_lossy=is_lossy, retry=retry)
            return
        found = self._find(exchange, routing_key, is_lossy=is_lossy, retry=retry)
        queues = {each.queue for each in found if each.queue}
        listeners = [each.kind for each in found if not each.queue]
        for queue in sorted(queues):
            self._send_to_topic(queue, data, waits=not is_lossy, retry=retry)
        if exchange.may_be_unheard:
            listeners.append(exchange.kind)
        for kind in sorted(set(listeners)):
            self._transient.broadcast(data, exchange.name, kind, routing_key, retry=retry)
        if not queues and not listeners:
            raise PublishError(
                f"exchange {exchange.name!r}: no queue is bound with a key that fits "
                f"{routing_key!r}, so the message would be lost. Start the worker that declares "
                "the queue first, or publish to a queue by its name"
            )

    def _find(
        self, exchange: Exchange, routing_key: str, *, is_lossy: bool, retry: bool
    ) -> set[Binding]:
        if exchange.is_remote_control:
            return set()
        timeout = None if is_lossy else _READ_SECONDS if retry else _READ_ONCE_SECONDS
        found = self._bindings.find(exchange.name, routing_key, timeout)
        implied = Binding(exchange.name, "direct", routing_key, routing_key)
        if not found and implied.is_implied and exchange.kind == "direct":
            return {implied}
        return found

    def _send_to_queue(self, queue: str, data: bytes, *, is_lossy: bool, retry: bool) -> None:
        """Send to a queue by its name, wherever it is."""
        if not queue:
            raise PublishError("no routing key: it names the queue if there is no exchange")
        is_elsewhere = is_transient_name(queue) and queue not in self._resources.declared
        if queue in self._transient or (is_elsewhere and is_lossy):
            self._transient.broadcast(data, "", "direct", queue, retry=retry)
            return
        try:
            self._send_to_topic(queue, data, may_create=not is_elsewhere, retry=retry)
        except TopicNotFound:
            if not is_elsewhere:
                raise
            self._transient.broadcast(data, "", "direct", queue, retry=retry)

    def _send_to_topic(
        self,
        queue: str,
        data: bytes,
        *,
        may_create: bool = True,
        waits: bool = True,
        retry: bool = True,
    ) -> None:
        if queue in self._options.queues:
            raise PublishError(
                f"queue {queue} carries raw messages, not Celery's: publish to its topic with "
                "ctx.pubsub.publish, or call the handler with .delay(payload)"
            )
        message = OutgoingMessage(celery_queue(queue, self._options).topic, data)
        if_missing = IfMissing(declare=(queue,) if may_create else ())
        if waits:
            self._publisher.publish_confirmed(message, if_missing=if_missing, retry=retry)
        else:
            self._publisher.publish(message, retry=retry)
