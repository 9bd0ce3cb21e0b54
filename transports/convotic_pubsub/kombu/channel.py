"""kombu's channel: a thin view on the session. It declares, publishes, consumes and settles."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from convotic_pubsub.celery.codec import encode_envelope
from convotic_pubsub.celery.envelope import check_eta
from convotic_pubsub.celery.exchanges import Exchange
from convotic_pubsub.errors import PublishError
from convotic_pubsub.kombu.declaring import DeclaringChannel
from convotic_pubsub.kombu.message import Message
from convotic_pubsub.kombu.patience import is_retried
from convotic_pubsub.kombu.qos import QoS

if TYPE_CHECKING:
    from collections.abc import Callable

    from convotic_pubsub.consume.delivery import Delivery
    from convotic_pubsub.consume.subscription import Subscription
    from convotic_pubsub.kombu.inbox import Inbox
    from convotic_pubsub.queue import PayloadDict

__all__ = ["Channel", "Message", "QueuedMessage"]

logger = logging.getLogger(__name__)

#: AMQP's delivery mode of messages that may be lost.
_LOSSY: Final = 1


class QueuedMessage(NamedTuple):
    """One message on its way to a consumer's callback."""

    channel: Channel
    consumer_tag: str
    delivery: Delivery | None
    payload: PayloadDict

    def deliver(self) -> None:
        """Call its consumer in the calling thread, as the connection's loop does in its own.

        Raises nothing.
        """
        self.channel.deliver_elsewhere(self)


class Channel(DeclaringChannel):
    """A channel of :class:`~convotic_pubsub.kombu.transport.Transport`."""

    do_restore = False
    supports_fanout = True
    body_encoding = None  # type: ignore[assignment]  # None is kombu's "leave it"; the stub says str
    from_transport_options = ()

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self._unsettled = QoS()
        self._inbox: Inbox[QueuedMessage] = connection.inbox
        self._subscriptions: dict[str, Subscription] = {}
        self._callbacks: dict[str, tuple[bool, Callable[[Message], Any]]] = {}
        self._redirects: dict[str, Callable[[QueuedMessage], bool]] = {}
        self._held: deque[QueuedMessage] = deque()

    @property
    def qos(self) -> QoS:  # type: ignore[override]  # kombu uses no more of it than ours has
        """What is unsettled, and the prefetch count."""
        return self._unsettled

    # -- publishing -------------------------------------------------------------------------------

    def basic_publish(
        self, message: dict[str, Any], exchange: str, routing_key: str, **kwargs: Any
    ) -> None:
        """Publish; returns once the server has confirmed it; replies and events are not waited for.

        Called with ``retry`` (Celery's default), kombu's producer has a lost connection outlasted,
        for ``publish_timeout_seconds``; without it there is one attempt.

        Raises:
            PublishError: no queue gets it, or it was refused, or not confirmed in time.
            BrokerUnavailable: the one attempt found no server.
        """
        del kwargs
        # With Celery's expires= it has both: the worker drops what has expired.
        if message["properties"].get("expiration") and not message["headers"].get("expires"):
            raise PublishError(
                "a message's expiration= can't be kept, Pub/Sub has none: use Celery's expires=, "
                "or the queue's message_retention_seconds"
            )
        self._inplace_augment_message(message, exchange, routing_key)
        check_eta(message)
        self.session.exchanges.publish(
            encode_envelope(message),
            self._exchange(exchange) if exchange else Exchange(""),
            routing_key,
            is_lossy=message["properties"].get("delivery_mode") == _LOSSY,
            retry=is_retried(),
        )

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        """Publish to a queue: kombu's own way, for what it has of its own to send."""
        del kwargs
        self.session.exchanges.publish(encode_envelope(message), Exchange(""), queue)

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
                queue,
                lambda payload: self._inbox.put(QueuedMessage(self, consumer_tag, None, payload)),
            )
            return
        spec = self.session.spec(queue)
        if self._unsettled.prefetch_count and queue not in self.session.options.queues:
            spec = replace(spec, concurrency=self._unsettled.prefetch_count)
        self._subscriptions[consumer_tag] = self.session.consume(
            spec, lambda delivery: self._queue(queue, consumer_tag, delivery)
        )

    def redirect(self, queue: str, put: Callable[[QueuedMessage], bool]) -> None:
        """Have a queue's messages delivered by another thread than the connection's loop.

        ``put`` is called on the I/O thread and must not block: another thread is to call
        :meth:`QueuedMessage.deliver`. It returns False for one that the connection's loop is to
        have. It is not called while there is a prefetch count, which one thread alone can keep.
        """
        self._redirects[queue] = put

    def _queue(self, queue: str, consumer_tag: str, delivery: Delivery) -> None:
        """Queue a delivery where the queue's messages go, or else here (I/O thread)."""
        assert delivery.payload is not None
        queued = QueuedMessage(self, consumer_tag, delivery, delivery.payload)
        put = self._redirects.get(queue)
        if put is None or self._unsettled.prefetch_count or not put(queued):
            self._inbox.put(queued)

    def basic_cancel(self, consumer_tag: str) -> None:
        """Stop a consumer: nothing more is pulled, what was not delivered is given back."""
        self._consumers.discard(consumer_tag)
        queue = self._tag_to_queue.pop(consumer_tag, None)
        self._callbacks.pop(consumer_tag, None)
        consumer = self._subscriptions.pop(consumer_tag, None)
        if consumer is not None:
            self.session.cancel(consumer)
        elif queue is not None:
            self._transient.cancel(queue)

    def deliver(self, queued: QueuedMessage, *, contain: bool = False) -> bool:
        """Give one message to its consumer; False when that was not possible now.

        ``contain`` dead-letters a message that its consumer can't take, instead of raising.
        """
        entry = self._callbacks.get(queued.consumer_tag)
        if entry is None:
            self._resume()
            return False  # cancelled: the session has given the message back
        no_ack, callback = entry
        if not no_ack and not self._unsettled.can_consume():
            self._held.append(queued)
            self._resume()  # another thread may have settled a message before this one was held
            return False
        delivery = queued.delivery
        if delivery is not None and not delivery.check_out():
            delivery.subscription.resume()
            self._resume()
            return False  # given back meanwhile: it waited too long
        message = self._message(queued.payload, delivery)
        if no_ack:
            message.settle_ack()
        else:
            self._unsettled.append(message, message.delivery_tag)
        self._call(callback, message, contain=contain)
        return True

    def deliver_elsewhere(self, queued: QueuedMessage) -> None:
        """Give a message to its consumer, outside of the connection's loop.

        A broker's error is for that loop to see and to act upon: this message goes back.
        """
        connection: Any = self.connection
        if connection is None or connection.is_stopping:
            return  # it is given back when the connection closes
        try:
            self.deliver(queued, contain=True)
        except Exception as error:  # noqa: BLE001  the calling thread has other messages too
            logger.warning(
                "A message of queue %s was not taken: %s",
                self._tag_to_queue.get(queued.consumer_tag),
                error,
                extra={"action": "message_not_taken"},
            )

    def _call(self, callback: Callable[[Message], Any], message: Message, *, contain: bool) -> None:
        connection = self.connection
        assert connection is not None
        try:
            callback(message)
        except (*connection.connection_errors, *connection.channel_errors):
            message.settle_reject(requeue=True)  # the consumer is about to restart
            raise
        except Exception as error:
            if not contain:
                raise
            if message.received is None:
                self._drop(message, error)
                return
            logger.exception(
                "Message %s of queue %s can't be taken; it goes to the dead-letter topic",
                message.received.message_id,
                message.received.subscription,
                extra={"action": "message_refused", "queue": message.received.subscription},
            )
            message.give_up(error)

    def _drop(self, message: Message, error: Exception) -> None:
        """Drop an event or a command that its consumer can't take: it must not end the worker."""
        logger.warning(
            "A message of exchange %s is dropped, it can't be handled: %s: %s",
            (message.delivery_info or {}).get("exchange"),
            type(error).__name__,
            error,
            extra={"action": "control_invalid"},
        )
        self.forget(message)

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
        for subscription in list(self._subscriptions.values()):
            if subscription.spec.queue not in self.session.options.queues:
                self.session.post(subscription.set_concurrency, limit)
        self._resume()

    # -- settling ---------------------------------------------------------------------------------

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Acknowledge; returns at once, the session confirms."""
        del multiple
        message = self._unsettled.find(delivery_tag)
        if message is not None:
            message.settle_ack()
            self.forget(message)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Return a message for delivery now, or (``requeue=False``) dead-letter it."""
        message = self._unsettled.find(delivery_tag)
        if message is None:
            return
        if message.received is None and requeue:
            self._transient.put_back(message.delivery_info["routing_key"], message.payload_dict)
        message.settle_reject(requeue=requeue)
        self.forget(message)

    def forget(self, message: Message) -> None:
        """Stop counting a settled message."""
        self._unsettled.remove(str(message.delivery_tag))
        if self._held:
            self._resume()

    def basic_recover(self, requeue: bool = False) -> None:
        """Return all unsettled messages for delivery now."""
        del requeue
        for tag in self._unsettled.tags():
            self.basic_reject(tag, requeue=True)

    def _resume(self) -> None:
        """Put what the prefetch count held up back into the inbox, as much as it allows now."""
        room = self._unsettled.room()
        while self._held and room > 0:
            try:
                queued = self._held.popleft()
            except IndexError:  # another thread was faster
                return
            self._inbox.put(queued)
            room -= 1

    def close(self) -> None:
        """Cancel the consumers. What runs keeps its lease and can still be settled.

        A message goes back when nothing refers to it any more.
        """
        if self.closed:
            return
        self.closed = True
        for consumer_tag in list(self._consumers):
            self.basic_cancel(consumer_tag)
        self._unsettled.release()
        if self.connection is not None:
            self.connection.close_channel(self)
