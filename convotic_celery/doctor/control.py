"""Control subscriptions whose process is gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from convotic_celery.doctor.finding import Finding
from convotic_pubsub.errors import PubsubTransportError, TopicNotFound

if TYPE_CHECKING:
    from convotic_pubsub.session import Session

__all__ = ["check_control"]


def check_control(session: Session) -> Iterator[Finding]:
    """Delete the control subscriptions that killed processes of this host have left."""
    swept: list[str] = []
    others = 0
    for subscription in session.transient.subscriptions.values():
        try:
            left = subscription.sweep()
        except TopicNotFound:
            continue  # no process has ever listened
        except PubsubTransportError as error:
            yield Finding("control", "note", f"control subscriptions can't be listed: {error}", "")
            return
        swept += left.deleted
        others += left.elsewhere
    text = "every control subscription of this host has its process"
    if swept:
        text = f"deleted what killed processes of this host have left: {', '.join(swept)}"
    if others:
        text += f"; {others} of other hosts stay, and expire a day after their process"
    yield Finding("control", "ok", text)
