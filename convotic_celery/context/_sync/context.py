"""The context of a plain ``def`` handler."""

# Generated from _async/context.py by scripts/unasync.py; edit that.

from __future__ import annotations

import math
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from convotic_celery.errors import DeadlineNotExtendable, ResourceNotProvided

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from convotic_celery.context._sync.protocols import (
        SyncContactService,
        SyncConversationService,
        SyncMessageService,
        SyncStorageService,
        SyncWorkflowService,
    )
    from convotic_celery.context._sync.pubsub import SyncPubsub
    from convotic_celery.context.delivery import Delivery
    from convotic_celery.context.logger import HandlerLogger

__all__ = ["SyncConvoticContext"]

ServiceT = TypeVar("ServiceT")


class _Services(Protocol):
    """What this needs of :class:`convotic_celery.context.services.Services`."""

    @property
    def sync_contacts(self) -> SyncContactService: ...
    @property
    def sync_conversations(self) -> SyncConversationService: ...
    @property
    def sync_messages(self) -> SyncMessageService: ...
    @property
    def sync_storage(self) -> Callable[[str], SyncStorageService]: ...
    @property
    def sync_workflows(self) -> Callable[[SyncPubsub], SyncWorkflowService]: ...
    def sync_pubsub(self, trace: Mapping[str, str] | None = None) -> SyncPubsub: ...
    def find(self, kind: type[ServiceT]) -> ServiceT: ...


class SyncConvoticContext:
    """The services and facts that a handler uses for one message, or a route for one request.

    All messages of a process share the services; logger and pubsub know the message, and the
    storage is the module's. Don't keep it beyond the handler.
    """

    _logger: HandlerLogger | None = None

    def __init__(self, services: _Services, delivery: Delivery) -> None:
        self._delivery = delivery
        self._services = services
        self.contacts: SyncContactService = services.sync_contacts
        self.conversations: SyncConversationService = services.sync_conversations
        self.messages: SyncMessageService = services.sync_messages

    # These are created when first used: most handlers use some, and none uses all.

    @cached_property
    def storage(self) -> SyncStorageService:
        """The module's own JSON and bytes, by key."""
        return self._services.sync_storage(self._delivery.module)

    @cached_property
    def pubsub(self) -> SyncPubsub:
        """Publishes, and passes on the message's trace context."""
        return self._services.sync_pubsub(self._delivery.trace)

    @property
    def logger(self) -> HandlerLogger:
        """A structured logger; every line names handler and message."""
        # Not a cached_property: on Python 3.11 that takes a lock.
        if self._logger is None:
            self._logger = _logger_builder()(self._delivery.log_fields)
        return self._logger

    @property
    def workflows(self) -> SyncWorkflowService:
        """Starts the workflows that modules have registered, and reads their runs."""
        return self._services.sync_workflows(self.pubsub)

    def service(self, kind: type[ServiceT]) -> ServiceT:
        """Return a service of your own by its type; raises ServiceNotProvided.

        Services are registered by ``services.provide(kind, service)``, see CONVOTIC_SERVICES.
        """
        return self._services.find(kind)

    def resource(self, kind: type[ServiceT]) -> ServiceT:
        """Return what the module's lifespan yields; raises ResourceNotProvided for another type."""
        found = self._delivery.resource
        if not isinstance(found, kind):
            what = "nothing" if found is None else f"a {type(found).__qualname__}"
            raise ResourceNotProvided(f"{kind.__module__}.{kind.__qualname__}", what)
        return found

    def extend_ack_deadline(self, seconds: float) -> None:
        """Let this run go on for at least ``seconds`` from now, and keep its lease.

        Never shortens; does not block, and is not awaited. A run takes at most
        ``max_lease_duration`` in all, or a day without that option. Raises ValueError beyond that,
        and DeadlineNotExtendable in a prefork child and in a route.
        """
        if self._delivery.control is None:
            raise DeadlineNotExtendable("There is no ack deadline here: no message is running.")
        self._delivery.control.extend(seconds)

    @property
    def time_left(self) -> float:
        """Seconds until the run is stopped at its ack deadline; infinite without a deadline."""
        control = self._delivery.control
        return math.inf if control is None else control.time_left

    @property
    def fencing_token(self) -> int | None:
        """A number that grows with each run of the message's key; None without ``deduplicate``.

        A system that remembers the largest number it has seen can refuse late writes of a stalled
        run.
        """
        control = self._delivery.control
        return None if control is None else control.fencing_token

    @property
    def attempt(self) -> int:
        """1 on the first run of the message, 2 on the first retry."""
        return self._delivery.attempt

    @property
    def is_replay(self) -> bool:
        """True if the message was replayed from the dead-letter topic."""
        return self._delivery.is_replay

    @property
    def delivery(self) -> Delivery:
        """The message's delivery: handler, topic, ids."""
        return self._delivery


@cache  # an import statement takes longer than making a logger, even the second time
def _logger_builder() -> Callable[[Callable[[], dict[str, Any]]], HandlerLogger]:
    # Importing structlog takes a tenth of a worker's start, and not every importer logs.
    from convotic_celery.context.logger import build_run_logger  # noqa: PLC0415

    return build_run_logger
