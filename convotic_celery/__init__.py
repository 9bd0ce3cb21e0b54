"""Celery on Google Cloud Pub/Sub: handlers on topics. All public names, each loaded when used.

Importing this package imports nothing else, reads nothing and starts nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convotic_celery.app import create_app
    from convotic_celery.context import (
        Contact,
        Conversation,
        ConvoticContext,
        Message,
        Page,
        Services,
        StorageItem,
        SyncConvoticContext,
        WorkflowRun,
    )
    from convotic_celery.errors import (
        AckDeadlineExceeded,
        ConfigurationError,
        ContactExists,
        ContactNotFound,
        ConversationNotFound,
        ConvoticError,
        DeadlineNotExtendable,
        HandlerNotLoaded,
        InvalidField,
        InvalidMessage,
        PublishManyFailed,
        PublishNotConfirmed,
        PublishRefused,
        ServiceNotProvided,
        StorageValueTooLarge,
        StoreUnavailable,
        WorkflowRunNotFound,
    )
    from convotic_celery.sdk import (
        BatchFailed,
        BatchOptions,
        CloudEvent,
        ConstantBackoff,
        ConvoticModule,
        DeadLetter,
        DeadLettered,
        Drop,
        ExponentialBackoff,
        Problem,
        Retry,
        RouteMiddleware,
        RouteRequest,
        RouteResponse,
        Sdk,
        WorkerMessage,
        WorkerMiddleware,
        WorkerOptions,
    )
    from convotic_celery.settings import Settings

__all__ = [
    "AckDeadlineExceeded",
    "BatchFailed",
    "BatchOptions",
    "CloudEvent",
    "ConfigurationError",
    "ConstantBackoff",
    "Contact",
    "ContactExists",
    "ContactNotFound",
    "Conversation",
    "ConversationNotFound",
    "ConvoticContext",
    "ConvoticError",
    "ConvoticModule",
    "DeadLetter",
    "DeadLettered",
    "DeadlineNotExtendable",
    "Drop",
    "ExponentialBackoff",
    "HandlerNotLoaded",
    "InvalidField",
    "InvalidMessage",
    "Message",
    "Page",
    "Problem",
    "PublishManyFailed",
    "PublishNotConfirmed",
    "PublishRefused",
    "Retry",
    "RouteMiddleware",
    "RouteRequest",
    "RouteResponse",
    "Sdk",
    "ServiceNotProvided",
    "Services",
    "Settings",
    "StorageItem",
    "StorageValueTooLarge",
    "StoreUnavailable",
    "SyncConvoticContext",
    "WorkerMessage",
    "WorkerMiddleware",
    "WorkerOptions",
    "WorkflowRun",
    "WorkflowRunNotFound",
    "create_app",
]

_HOMES = {
    "convotic_celery.app": ("create_app",),
    "convotic_celery.context": (
        "Contact",
        "Conversation",
        "ConvoticContext",
        "Message",
        "Page",
        "Services",
        "StorageItem",
        "SyncConvoticContext",
        "WorkflowRun",
    ),
    "convotic_celery.errors": (
        "AckDeadlineExceeded",
        "ConfigurationError",
        "ContactExists",
        "ContactNotFound",
        "ConversationNotFound",
        "ConvoticError",
        "DeadlineNotExtendable",
        "HandlerNotLoaded",
        "InvalidField",
        "InvalidMessage",
        "PublishManyFailed",
        "PublishNotConfirmed",
        "PublishRefused",
        "ServiceNotProvided",
        "StorageValueTooLarge",
        "StoreUnavailable",
        "WorkflowRunNotFound",
    ),
    "convotic_celery.sdk": (
        "BatchFailed",
        "BatchOptions",
        "CloudEvent",
        "ConstantBackoff",
        "ConvoticModule",
        "DeadLetter",
        "DeadLettered",
        "Drop",
        "ExponentialBackoff",
        "Problem",
        "Retry",
        "RouteMiddleware",
        "RouteRequest",
        "RouteResponse",
        "Sdk",
        "WorkerMessage",
        "WorkerMiddleware",
        "WorkerOptions",
    ),
    "convotic_celery.settings": ("Settings",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
