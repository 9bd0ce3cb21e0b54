"""The kombu transport ``pubsub://PROJECT``."""

from __future__ import annotations

import contextlib
import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from kombu.transport import virtual

from convotic_pubsub.errors import (
    AccessDenied,
    BrokerUnavailable,
    PublishError,
    SubscriptionMismatch,
    SubscriptionNotFound,
)
from convotic_pubsub.kombu.channel import Channel, QueuedMessage
from convotic_pubsub.kombu.inbox import Inbox
from convotic_pubsub.kombu.integrations import install, on_worker_stopping
from convotic_pubsub.kombu.patience import record_retries
from convotic_pubsub.options import parse_options
from convotic_pubsub.registry import open_session

if TYPE_CHECKING:
    from convotic_pubsub.session import Session

__all__ = ["Transport"]

logger = logging.getLogger(__name__)

#: Messages delivered before the hub gets to its timers and other descriptors.
_MAX_TURN = 64

#: The exchanges that were declared, by session.
_broker_states: WeakKeyDictionary[Session, virtual.BrokerState] = WeakKeyDictionary()

_RECOVERABLE_ERRORS: Final = (
    AccessDenied,
    PublishError,
    SubscriptionMismatch,
    SubscriptionNotFound,
)


class Transport(virtual.Transport):
    """Celery over Google Cloud Pub/Sub, driven by a descriptor that becomes readable.

    Connections are cheap: gRPC channels, leases and publishing belong to the process's
    :class:`~convotic_pubsub.session.Session`.
    """

    Channel = Channel
    can_parse_url = True
    driver_type = "pubsub"
    driver_name = "convotic-pubsub"
    polling_interval = None
    connection_errors = (*virtual.Transport.connection_errors, BrokerUnavailable, OSError)
    # Not OptionError: kombu would try again and again what can never work.
    channel_errors = (*virtual.Transport.channel_errors, *_RECOVERABLE_ERRORS)
    implements = virtual.Transport.implements.extend(
        asynchronous=True, exchange_type=frozenset(["direct", "topic", "fanout"])
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        install()
        record_retries(client)
        self.session: Session
        self.inbox: Inbox[QueuedMessage] = Inbox()
        self._hub: Any = None
        #: Whether nothing is delivered any more: what arrives is given back.
        self.is_stopping = False

    def driver_version(self) -> str:
        """Return the version of this transport."""
        return version("convotic-pubsub")

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """Return the URL; it holds no secret."""
        del include_password, mask
        return uri

    def establish_connection(self) -> Any:
        """Join the process's session, which is started when it is the first.

        Raises:
            BrokerUnavailable: the emulator does not answer; kombu tries again.
            PubsubTransportError: an option or the credentials can't be used.
        """
        client: Any = self.client
        self.session = open_session(parse_options(client.hostname or "", client.transport_options))
        # Exchanges are a project's; kombu's own state is shared by all connections of the process.
        self.state = _broker_states.setdefault(self.session, virtual.BrokerState())
        return super().establish_connection()

    def close_connection(self, connection: Any) -> None:
        """Cancel the connection's consumers, and confirm acks and publishes under way."""
        if self._hub is not None:
            with contextlib.suppress(KeyError, ValueError, OSError):
                self._hub.remove_reader(self.inbox.fileno())
            self._hub = None
        had_consumers = any(channel._consumers for channel in self.channels or ())
        super().close_connection(connection)
        if had_consumers:
            try:
                self.session.flush()
            except BrokerUnavailable as error:
                logger.warning(
                    "Some acknowledgements may not be confirmed: %s",
                    error,
                    extra={"action": "flush_failed"},
                )
        self.inbox.close()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Let Celery's hub watch the descriptor; called again after each loop reset."""
        del connection
        self._hub = loop
        on_worker_stopping(self._stop)
        loop.add_reader(self.inbox.fileno(), self._on_readable)
        if len(self.inbox):
            self.inbox.signal()

    def _stop(self, **kwargs: Any) -> None:
        """Hand over nothing more, and end the loop's wait: Celery would sleep up to a second.

        Runs in a signal handler, and takes no lock.
        """
        del kwargs
        self.is_stopping = True
        self.inbox.signal()

    def _on_readable(self) -> None:
        if self.is_stopping:  # what has arrived is given back when the connection closes
            self.inbox.acknowledge()
            return
        # An error would end the worker, and so would the same message in the next one.
        self._deliver_queued(_MAX_TURN, contain=True)

    def _deliver_queued(self, most: int, *, contain: bool = False) -> int:
        """Give what has arrived to the consumers, a bounded number; return how many it was."""
        self.inbox.acknowledge()
        count = 0
        try:
            for _ in range(most):
                # The message before may have run right here (-P solo), and the worker may have
                # been stopped meanwhile.
                queued = None if self.is_stopping else self.inbox.take()
                if queued is None:
                    break
                count += queued.channel.deliver(queued, contain=contain)
        finally:
            if len(self.inbox):
                self.inbox.signal()
        return count

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Wait for a message and hand it over; one, since kombu counts the calls.

        A caller that collects two answers (``inspect(limit=2)``) drains twice, and would wait in
        vain for the second one if both came at once.

        Raises:
            TimeoutError: none came within ``timeout`` seconds (None: no limit).
        """
        del connection, kwargs
        clock = self.session.clock
        give_up_at = None if timeout is None else clock() + timeout
        while not self._deliver_queued(1):
            left = None if give_up_at is None else give_up_at - clock()
            if (left is not None and left <= 0) or not self.inbox.wait(left):
                raise TimeoutError("no message in time")
