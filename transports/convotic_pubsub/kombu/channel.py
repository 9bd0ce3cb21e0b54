"""kombu's channel: a thin view on the session. It declares, publishes, consumes and settles."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from amqp.protocol import queue_declare_ok_t
from kombu.exceptions import ChannelError
from kombu.transport import virtual
from kombu.utils.uuid import uuid

from convotic_pubsub.celery.codec import encode_envelope
from convotic_pubsub.errors import PublishError, TopicNotFound
from convotic_pubsub.kombu.message import Message
from convotic_pubsub.kombu.qos import QoS
from convotic_pubsub.outgoing import FAIL_IF_MISSING, IfMissing, OutgoingMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from convotic_pubsub.consume.delivery import Delivery
    from convotic_pubsub.consume.subscription import Subscription
    from convotic_pubsub.kombu.inbox import Sink
    from convotic_pubsub.queue import PayloadDict
    from convotic_pubsub.session import Session

__all__ = ["Arrival", "Channel", "Message"]

logger = logging.getLogger(__name__)


class Arrival(NamedTuple):
    """One message on its way to a consumer's callback."""

    channel: Channel
    consumer_tag: str
    delivery: Delivery | None
    payload: PayloadDict

    def hand_over(self) -> None:
        """Give it to its consumer in the calling thread, as the connection's loop would in its own.

        Raises nothing.
        """
        self.channel.hand_over_elsewhere(self)


class Channel(virtual.Channel):
    """A channel of :class:`~convotic_pubsub.kombu.transport.Transport`."""

    do_restore = False
    supports_fanout = True
    body_encoding = None  # type: ignore[assignment]  # None is kombu's "leave it"; the stub says str
    from_transport_options = ()

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self._unsettled = QoS(self)
        self.session: Session = connection.session
        self._transient = self.session.transient
        self._sink: Sink[Arrival] = connection.sink
        self._queue_consumers: dict[str, Subscription] = {}
        self._callbacks: dict[str, tuple[bool, Callable[[Message], Any]]] = {}
        self._inboxes: dict[str, Callable[[Arrival], bool]] = {}
        self._held: deque[Arrival] = deque()

    @property
    def qos(self) -> QoS:  # type: ignore[override]  # kombu uses no more of it than ours has
        """What is unsettled, and the prefetch count."""
        return self._unsettled

    # -- queues -----------------------------------------------------------------------------------

    def queue_declare(
        self,
        queue: str | None = None,
        passive: bool = False,
        durable: bool = False,  # noqa: ARG002  # AMQP's; every queue on Pub/Sub is
        exclusive: bool = False,
        auto_delete: bool = False,
        **kwargs: Any,
    ) -> queue_declare_ok_t:
        """Declare a queue: transient ones live in this process, others are topic and subscription.

        Raises:
            ChannelError: passive, and the queue does not exist.
        """
        del kwargs
        queue = queue or f"amq.gen-{uuid()}"
        transient = exclusive or auto_delete or queue in self._transient
        if passive:
            if not self._has_queue(queue):
                raise ChannelError(
                    f"NOT_FOUND - no queue {queue!r}", (50, 10), "Queue.declare", 404
                )
        elif transient:
            self._transient.declare(queue)
        else:
            self.session.resources.ensure(self.session.spec(queue))
        count = self._count(queue) if passive or transient else None
        return queue_declare_ok_t(queue, count, 0)  # type: ignore[arg-type]  # None: not known

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        del kwargs
        return queue in self._transient or self.session.resources.exists(self.session.spec(queue))

    def queue_bind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = "",
        arguments: Any = None,
        **kwargs: Any,
    ) -> None:
        """Bind a queue to an exchange."""
        exchange = exchange or "amq.direct"
        super().queue_bind(queue, exchange, routing_key, arguments, **kwargs)
        if queue in self._transient:
            kind = self._exchange_type(exchange)
            self._transient.bind(queue, exchange, kind, routing_key)

    def _queue_bind(self, exchange: str, *meta: Any) -> None:
        """Nothing to do: bindings are kept by the session (transient) or the broker state."""

    def queue_unbind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = "",
        arguments: Any = None,
        **kwargs: Any,
    ) -> None:
        """Undo a binding."""
        exchange = exchange or "amq.direct"
        super().queue_unbind(queue, exchange, routing_key, arguments, **kwargs)
        if queue in self._transient:
            kind = self._exchange_type(exchange)
            self._transient.unbind(queue, exchange, kind, routing_key)

    def queue_delete(
        self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any
    ) -> None:
        """Delete a queue. That of a handler is never deleted from here."""
        del if_unused, kwargs
        if queue in self._transient:
            self._transient.delete(queue)
        elif queue not in self.session.options.queues and not (
            if_empty and self._count(queue) != 0
        ):
            self.session.resources.delete(self.session.spec(queue))
        self.state.queue_bindings_delete(queue)

    def after_reply_message_received(self, queue: str) -> None:
        """Keep the reply queue: it is local and costs nothing."""

    def _exchange_type(self, exchange: str) -> str:
        declared = (self.state.exchanges or {}).get(exchange)
        return str(declared["type"]) if declared else "direct"

    def _size(self, queue: str) -> int:
        return self._count(queue) or 0

    def _count(self, queue: str) -> int | None:
        """Return how many messages a queue has; None when that is not known."""
        if queue in self._transient:
            return int(self._transient.size(queue))
        subscription = self.session.spec(queue).subscription
        depth = self.session.resources.backlog_sizes([subscription]).get(subscription)
        return depth.messages if depth else None

    def _purge(self, queue: str) -> int:
        if queue in self._transient:
            return int(self._transient.purge(queue))
        return int(self.session.resources.purge(self.session.spec(queue)))

    # -- publishing -------------------------------------------------------------------------------

    def basic_publish(
        self, message: dict[str, Any], exchange: str, routing_key: str, **kwargs: Any
    ) -> None:
        """Publish; returns once the server has confirmed it; replies and events are not waited for.

        Raises:
            PublishError: refused, or not confirmed in time.
        """
        del kwargs
        self._inplace_augment_message(message, exchange, routing_key)
        data = encode_envelope(message)
        kind = self._exchange_type(exchange) if exchange else "direct"
        for queue in self._durable_targets(exchange, kind, routing_key):
            self._put(queue, data)
        if exchange and self._may_have_transient(exchange, kind, routing_key):
            self._transient.cast(data, exchange, kind, routing_key)

    def _durable_targets(self, exchange: str, kind: str, routing_key: str) -> Iterator[str]:
        if not exchange:
            yield routing_key
        elif kind != "fanout":
            queues = self._lookup(exchange, routing_key)
            yield from (queue for queue in queues if queue not in self._transient)

    def _may_have_transient(self, exchange: str, kind: str, routing_key: str) -> bool:
        """Say whether queues of other processes may be bound to an exchange."""
        if kind != "direct":
            return True
        queues = self._lookup(exchange, routing_key)
        return not queues or any(queue in self._transient for queue in queues)

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        del kwargs
        if queue in self.session.options.queues:
            raise PublishError(
                f"queue {queue} carries raw messages, not Celery's: publish to its topic with "
                "ctx.pubsub.publish, or call the handler with .delay(payload)"
            )
        session, spec = self.session, self.session.spec(queue)
        is_ours = queue in session.resources.declared
        if not is_ours and self._transient.is_elsewhere(queue):
            self._transient.cast(message, "", "direct", queue)
            return
        # One that was there: somebody has deleted it, or the emulator lost its data.
        if_missing = IfMissing(declare=(queue,)) if is_ours else FAIL_IF_MISSING
        try:
            session.publish_confirmed(OutgoingMessage(spec.topic, message), if_missing=if_missing)
        except TopicNotFound:
            if is_ours:
                raise
            # A reply queue of another process (rpc://): it listens on the control topic.
            self._transient.remember_elsewhere(queue)
            self._transient.cast(message, "", "direct", queue)

    # -- consuming --------------------------------------------------------------------------------

    def basic_consume(  # type: ignore[override]  # kombu passes all four, and uses no result
        self,
        queue: str,
        no_ack: bool,
        callback: Callable[[Message], Any],
        consumer_tag: str,
        **kwargs: Any,
    ) -> None:
        """Start a consumer; its callback runs where the connection's events are drained."""
        del kwargs
        self._tag_to_queue[consumer_tag] = queue
        self._consumers.add(consumer_tag)
        self._callbacks[consumer_tag] = (no_ack, callback)
        if queue in self._transient:
            self._transient.consume(
                queue, lambda payload: self._sink.put(Arrival(self, consumer_tag, None, payload))
            )
            return
        spec = self.session.spec(queue)
        if self._unsettled.prefetch_count and queue not in self.session.options.queues:
            spec = replace(spec, concurrency=self._unsettled.prefetch_count)
        self._queue_consumers[consumer_tag] = self.session.consume(
            spec, lambda delivery: self._arrive(queue, consumer_tag, delivery)
        )

    def use_inbox(self, queue: str, put: Callable[[Arrival], bool]) -> None:
        """Have a queue's messages handed over by another thread than the connection's loop.

        ``put`` is called on the I/O thread and must not block: another thread is to call
        :meth:`Arrival.hand_over`. It may say False for one that the connection's loop is to have.
        It is not asked while there is a prefetch count, which one thread alone can keep.
        """
        self._inboxes[queue] = put

    def _arrive(self, queue: str, consumer_tag: str, delivery: Delivery) -> None:
        """Put a delivery into the queue's inbox, or else the connection's (I/O thread)."""
        assert delivery.payload is not None
        arrival = Arrival(self, consumer_tag, delivery, delivery.payload)
        put = self._inboxes.get(queue)
        if put is None or self._unsettled.prefetch_count or not put(arrival):
            self._sink.put(arrival)

    def basic_cancel(self, consumer_tag: str) -> None:
        """Stop a consumer: nothing more is pulled, what was not handed over is given back."""
        self._consumers.discard(consumer_tag)
        queue = self._tag_to_queue.pop(consumer_tag, None)
        self._callbacks.pop(consumer_tag, None)
        consumer = self._queue_consumers.pop(consumer_tag, None)
        if consumer is not None:
            self.session.cancel(consumer)
        elif queue is not None:
            self._transient.cancel(queue)

    def hand_over(self, arrival: Arrival, *, contain: bool = False) -> bool:
        """Give one message to its consumer; False when that was not possible now.

        ``contain`` gives a message up that its consumer can't take, instead of raising.
        """
        entry = self._callbacks.get(arrival.consumer_tag)
        if entry is None:
            self._resume()
            return False  # cancelled: the session has given the message back
        no_ack, callback = entry
        if not no_ack and not self._unsettled.can_consume():
            self._held.append(arrival)
            return False
        delivery = arrival.delivery
        if delivery is not None and not delivery.check_out():
            delivery.subscription.resume()
            self._resume()
            return False  # given back meanwhile: it waited too long
        message = self._message(arrival.payload, delivery)
        if no_ack:
            message.settle_ack()
        else:
            self._unsettled.append(message, message.delivery_tag)
        self._call(callback, message, contain=contain)
        return True

    def hand_over_elsewhere(self, arrival: Arrival) -> None:
        """Give a message to its consumer, outside of the connection's loop.

        An error of the broker is that loop's to see and to act upon: this message goes back.
        """
        connection: Any = self.connection
        if connection is None or connection.is_stopping:
            return  # it is given back when the connection closes
        try:
            self.hand_over(arrival, contain=True)
        except Exception as error:  # noqa: BLE001  whoever calls has other messages too
            logger.warning(
                "A message of queue %s was not taken: %s",
                self._tag_to_queue.get(arrival.consumer_tag),
                error,
                extra={"action": "message_not_taken"},
            )

    def _call(self, callback: Callable[[Message], Any], message: Message, *, contain: bool) -> None:
        connection = self.connection
        assert connection is not None
        try:
            callback(message)
        except (*connection.connection_errors, *connection.channel_errors):
            message.settle_reject(requeue=True)  # the consumer is about to start anew
            raise
        except Exception as error:
            if not contain or message.received is None:
                raise
            logger.exception(
                "Message %s of queue %s can't be taken; it goes to the dead-letter topic",
                message.received.message_id,
                message.received.subscription,
                extra={"action": "message_refused", "queue": message.received.subscription},
            )
            message.give_up(error)

    def _message(self, payload: PayloadDict, delivery: Delivery | None) -> Message:
        if "delivery_tag" not in payload["properties"]:
            payload["properties"]["delivery_tag"] = self._next_delivery_tag()
        return Message(payload, channel=self, delivery=delivery)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Message | None:
        """Return a message that is available now, None when there is none."""
        del kwargs
        if queue in self._transient:
            payload = self._transient.get(queue)
            message = None if payload is None else self._message(payload, None)
        else:
            taken: deque[Delivery] = deque()
            self.session.get(self.session.spec(queue), taken.append)
            message = None
            if taken and taken[0].check_out():
                assert taken[0].payload is not None
                message = self._message(taken[0].payload, taken[0])
        if message is not None and no_ack:
            message.settle_ack()
        elif message is not None:
            self._unsettled.append(message, message.delivery_tag)
        return message

    def basic_qos(
        self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False
    ) -> None:
        """Change how many unsettled messages this channel may have; 0 is no limit."""
        del prefetch_size, apply_global
        self._unsettled.prefetch_count = prefetch_count
        limit = prefetch_count or self.session.options.default_max_outstanding
        for consumer in self._queue_consumers.values():
            if consumer.spec.queue not in self.session.options.queues:
                self.session.post(consumer.set_concurrency, limit)
        self._resume()

    # -- settling ---------------------------------------------------------------------------------

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Acknowledge; returns at once, the session confirms."""
        del multiple
        message = self._unsettled.unsettled.get(delivery_tag)
        if message is not None:
            message.settle_ack()
            self.forget(message)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Return a message for delivery now, or (``requeue=False``) dead-letter it."""
        message = self._unsettled.unsettled.get(delivery_tag)
        if message is None:
            return
        if message.received is None and requeue:
            self._transient.put_back(message.delivery_info["routing_key"], message.payload_dict)
        message.settle_reject(requeue=requeue)
        self.forget(message)

    def forget(self, message: Message) -> None:
        """A message was settled: its place is free."""
        self._unsettled.unsettled.pop(str(message.delivery_tag), None)
        self._resume()

    def basic_recover(self, requeue: bool = False) -> None:
        """Return all unsettled messages for delivery now."""
        del requeue
        for tag in list(self._unsettled.unsettled):
            self.basic_reject(tag, requeue=True)

    def _resume(self) -> None:
        """Put back into the inbox what the prefetch count held up, as many as it allows now."""
        room = self._unsettled.room()
        while self._held and room > 0:
            try:
                arrival = self._held.popleft()
            except IndexError:  # another thread was faster
                return
            self._sink.put(arrival)
            room -= 1

    def close(self) -> None:
        """Cancel the consumers. What runs keeps its lease and can still be settled.

        What nobody holds any more goes back: it is kept for those who do, and no longer.
        """
        if self.closed:
            return
        self.closed = True
        for consumer_tag in list(self._consumers):
            self.basic_cancel(consumer_tag)
        self._unsettled.release()
        if self.connection is not None:
            self.connection.close_channel(self)
