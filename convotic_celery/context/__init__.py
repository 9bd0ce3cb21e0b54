"""What handlers work with: the context, its services, and what these return."""

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
from convotic_celery.context.logger import HandlerLogger
from convotic_celery.context.models import Contact, Conversation, Message, Page
from convotic_celery.context.publishing import TopicPublisher
from convotic_celery.context.services import Services, ServicesHook
from convotic_celery.context.storage import StorageItem
from convotic_celery.context.store import Store
from convotic_celery.context.workflow_runs import WorkflowRun, WorkflowRunSummary

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
