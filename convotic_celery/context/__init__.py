"""What handlers work with: the context, its services, and what these return.

=====================  ==========================================================================
``services``           makes the contexts; where a team plugs in services of its own
``_async/``            the services for ``async def``; ``_sync/`` is generated from it
``models``             what they return; ``fields`` and ``records``: as given, and as stored;
                       ``typed_json``, ``totals``, ``paging``
``publishing``         checks and publishes messages; ``publishing_many``; ``confirmations``:
                       waiting on a loop for what another thread confirms
``scheduled``          delayed messages in the store; ``scheduled_listing`` shows them
``storage``            ``ctx.storage``'s values; ``workflow_runs`` runs of workflows
``scripts``            what changes the store, as Lua; ``storage_scripts``, ``workflow_scripts``
``delivery``           which message is handled; ``logger``: ``ctx.logger``
``store``              clients of Redis or Valkey, by ``connections`` (plain code) and ``pipeline``
                       (event loops); ``database`` runs scripts on it; ``keys`` names its keys
=====================  ==========================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convotic_celery.context._async.contacts import AsyncContacts
from convotic_celery.context._async.context import ConvoticContext
from convotic_celery.context._async.conversations import AsyncConversations
from convotic_celery.context._async.messages import AsyncMessages
from convotic_celery.context._async.protocols import (
    AsyncContactService,
    AsyncConversationService,
    AsyncMessageService,
    AsyncStorageService,
    AsyncWorkflowService,
)
from convotic_celery.context._async.pubsub import AsyncPubsub
from convotic_celery.context._async.storage import AsyncStorage
from convotic_celery.context._async.workflows import AsyncWorkflows
from convotic_celery.context._sync.contacts import SyncContacts
from convotic_celery.context._sync.context import SyncConvoticContext
from convotic_celery.context._sync.conversations import SyncConversations
from convotic_celery.context._sync.messages import SyncMessages
from convotic_celery.context._sync.protocols import (
    SyncContactService,
    SyncConversationService,
    SyncMessageService,
    SyncStorageService,
    SyncWorkflowService,
)
from convotic_celery.context._sync.pubsub import SyncPubsub
from convotic_celery.context._sync.storage import SyncStorage
from convotic_celery.context._sync.workflows import SyncWorkflows
from convotic_celery.context.delivery import Delivery, RouteCall
from convotic_celery.context.models import Contact, Conversation, Message, Page
from convotic_celery.context.publishing import TopicPublisher
from convotic_celery.context.services import Services, ServicesHook
from convotic_celery.context.storage import StorageItem
from convotic_celery.context.store import Store
from convotic_celery.context.workflow_runs import WorkflowRun, WorkflowRunSummary

if TYPE_CHECKING:
    from convotic_celery.context.logger import HandlerLogger

__all__ = [
    "AsyncContactService",
    "AsyncContacts",
    "AsyncConversationService",
    "AsyncConversations",
    "AsyncMessageService",
    "AsyncMessages",
    "AsyncPubsub",
    "AsyncStorage",
    "AsyncStorageService",
    "AsyncWorkflowService",
    "AsyncWorkflows",
    "Contact",
    "Conversation",
    "ConvoticContext",
    "Delivery",
    "HandlerLogger",
    "Message",
    "Page",
    "RouteCall",
    "Services",
    "ServicesHook",
    "StorageItem",
    "Store",
    "SyncContactService",
    "SyncContacts",
    "SyncConversationService",
    "SyncConversations",
    "SyncConvoticContext",
    "SyncMessageService",
    "SyncMessages",
    "SyncPubsub",
    "SyncStorage",
    "SyncStorageService",
    "SyncWorkflowService",
    "SyncWorkflows",
    "TopicPublisher",
    "WorkflowRun",
    "WorkflowRunSummary",
]


def __getattr__(name: str) -> type[HandlerLogger]:
    if name != "HandlerLogger":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Loads structlog: when somebody logs, or asks for this.
    from convotic_celery.context.logger import HandlerLogger  # noqa: PLC0415

    return HandlerLogger
