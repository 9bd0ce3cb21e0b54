"""Who needs which right, for what: the table of docs/google-cloud.md as values. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["CONTROL_PERMISSIONS"]

#: On the project: what a process needs for its own control subscription, beside
#: ``roles/pubsub.publisher`` on ``celery.control`` and ``celery.events``.
CONTROL_PERMISSIONS: Final = frozenset(
    {
        "pubsub.subscriptions.create",
        "pubsub.subscriptions.delete",
        "pubsub.subscriptions.get",
        "pubsub.subscriptions.consume",
        "pubsub.topics.attachSubscription",
        "pubsub.topics.get",
    }
)
