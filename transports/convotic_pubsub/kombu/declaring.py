"""What a channel declares: exchanges and queues, and how they are bound, counted and deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from amqp.protocol import queue_declare_ok_t
from kombu.exceptions import ChannelError
from kombu.transport import virtual
from kombu.utils.uuid import uuid

from convotic_pubsub.celery.exchanges import Exchange
from convotic_pubsub.celery.routing import is_transient_name
from convotic_pubsub.kombu.queue_arguments import check_arguments

if TYPE_CHECKING:
    from convotic_pubsub.session import Session

__all__ = ["DeclaringChannel"]

_EXCHANGE_TYPES: Final = ("direct", "topic", "fanout")


class DeclaringChannel(virtual.Channel):
    """The half of :class:`~convotic_pubsub.kombu.channel.Channel` that handles no message."""

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.session: Session = connection.session
        self._transient = self.session.transient

    def exchange_declare(
        self,
        exchange: str | None = None,
        type: str = "direct",  # noqa: A002  kombu's name
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Declare an exchange: what this process knows of it.

        Raises:
            ChannelError: its type is not direct, topic or fanout.
        """
        if (type or "direct") not in _EXCHANGE_TYPES:
            raise ChannelError(
                f"exchange {exchange!r}: type {type!r} is not supported on Pub/Sub, use one of "
                f"{', '.join(_EXCHANGE_TYPES)}",
                (40, 10),
                "Exchange.declare",
                540,
            )
        super().exchange_declare(exchange, type, *args, **kwargs)

    def queue_declare(
        self,
        queue: str | None = None,
        passive: bool = False,
        durable: bool = False,  # noqa: ARG002  # AMQP's; every queue on Pub/Sub is
        exclusive: bool = False,
        auto_delete: bool = False,
        **kwargs: Any,
    ) -> queue_declare_ok_t:
        """Declare a queue: one process's own live in it, others are topic and subscription.

        Only a queue that is named for its process (a UUID, a worker's remote control) is its own.
        What other names share is shared, and kept, whatever ``exclusive`` and ``auto_delete`` say.

        Raises:
            ChannelError: passive, and the queue does not exist.
            OptionError: its arguments ask for something that Pub/Sub does not have.
        """
        queue = queue or f"amq.gen-{uuid()}"
        is_own = (exclusive or auto_delete) and is_transient_name(queue)
        transient = is_own or queue in self._transient
        if passive:
            if not self._has_queue(queue):
                raise ChannelError(
                    f"NOT_FOUND - no queue {queue!r}", (50, 10), "Queue.declare", 404
                )
        elif transient:
            self._transient.declare(queue)
        else:
            check_arguments(queue, kwargs.get("arguments") or {})
            self.session.resources.ensure(self.session.spec(queue))
        count = self._count(queue) if passive or transient else None
        return queue_declare_ok_t(queue, count, 0)  # type: ignore[arg-type]  # None: not known

    def prepare_queue_arguments(
        self, arguments: dict[str, Any] | None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the arguments that :meth:`queue_declare` gets: kombu's beside the given ones."""
        return {**(arguments or {}), **{name: value for name, value in kwargs.items() if value}}

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
        """Bind a queue to an exchange, as all processes that publish there will see."""
        del arguments, kwargs
        self.session.exchanges.bind(self._exchange(exchange or "amq.direct"), queue, routing_key)

    def queue_unbind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = "",
        arguments: Any = None,
        **kwargs: Any,
    ) -> None:
        """Undo a binding."""
        del arguments, kwargs
        self.session.exchanges.unbind(self._exchange(exchange or "amq.direct"), queue, routing_key)

    def queue_delete(
        self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any
    ) -> None:
        """Delete a queue and the bindings known here. A handler's is never deleted from here."""
        del if_unused, kwargs
        if queue in self._transient:
            self._transient.delete(queue)
        elif queue not in self.session.options.queues and not (
            if_empty and self._count(queue) != 0
        ):
            self.session.bindings.remove_queue(queue)
            self.session.resources.delete(self.session.spec(queue))

    def after_reply_message_received(self, queue: str) -> None:
        """Keep the reply queue: it is local and costs nothing."""

    def _exchange(self, name: str) -> Exchange:
        declared = (self.state.exchanges or {}).get(name)
        if declared is None:
            return Exchange(name)
        return Exchange(
            name, str(declared["type"]), is_durable=bool(declared["durable"]), is_declared=True
        )

    def _size(self, queue: str) -> int:
        return self._count(queue) or 0

    def _count(self, queue: str) -> int | None:
        """Return how many messages a queue has; None when that is not known."""
        if queue in self._transient:
            return int(self._transient.size(queue))
        subscription = self.session.spec(queue).subscription
        size = self.session.resources.backlog_sizes([subscription]).get(subscription)
        return size.messages if size else None

    def _purge(self, queue: str) -> int:
        if queue in self._transient:
            return int(self._transient.purge(queue))
        return self.session.resources.purge(self.session.spec(queue))
