"""What each service of the context must do: who writes one of their own implements these.

Each method means what the service of the same name in this package says; see ``docs/modules.md``,
"Services of your own".
"""

# Generated from _async/protocols.py by scripts/unasync.py; edit that.

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Unpack, overload

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from decimal import Decimal

    from pydantic import JsonValue

    from convotic_celery.context.models import (
        Contact,
        ContactChanges,
        ContactFields,
        Conversation,
        Message,
        Page,
    )
    from convotic_celery.context.storage import StorageItem
    from convotic_celery.context.workflow_runs import (
        WorkflowRun,
        WorkflowRunSummary,
        WorkflowStatus,
    )

__all__ = [
    "SyncContactService",
    "SyncConversationService",
    "SyncMessageService",
    "SyncStorageService",
    "SyncWorkflowService",
]

ValueT = TypeVar("ValueT")


class SyncContactService(Protocol):
    """Keeps contacts. ``create`` raises ContactExists, whoever else creates at the same time."""

    def get(self, contact_id: str) -> Contact:
        """Return the contact; raises ContactNotFound."""
        ...

    def find_by_external_id(self, external_id: str) -> Contact | None:
        """Return the contact with this id in the other system, or None."""
        ...

    def find_by_email(self, email: str) -> Contact | None:
        """Return the oldest contact with this address, or None."""
        ...

    def create(self, **given: Unpack[ContactFields]) -> Contact:
        """Create a contact; raises ContactExists if the external id is taken."""
        ...

    def update(self, contact_id: str, **changes: Unpack[ContactChanges]) -> Contact:
        """Change what is given; raises ContactNotFound and ContactExists."""
        ...

    def add_tag(self, contact_id: str, tag: str) -> bool:
        """Tag the contact; True if the tag is new to it."""
        ...

    def remove_tag(self, contact_id: str, tag: str) -> bool:
        """Take the tag off; True if it was there."""
        ...

    def increment(
        self,
        contact_id: str,
        amounts: Mapping[str, int | Decimal],
        *,
        idempotency_key: str | None = None,
    ) -> bool:
        """Add to the totals, once for each idempotency key."""
        ...

    def list(self, *, limit: int = 100, cursor: str | None = None) -> Page[Contact]:
        """Return a page of contacts, oldest first."""
        ...

    def count(self) -> int:
        """Return how many there are."""
        ...

    def delete(self, contact_id: str) -> bool:
        """Delete the contact with all that is its own; True if it was there."""
        ...


class SyncConversationService(Protocol):
    """Keeps conversations with contacts."""

    def create(self, contact_id: str, *, channel: str = "chat") -> Conversation:
        """Open a conversation; raises ContactNotFound."""
        ...

    def get(self, conversation_id: str) -> Conversation:
        """Return the conversation; raises ConversationNotFound."""
        ...

    def find_by_contact_id(self, contact_id: str) -> Conversation | None:
        """Return the contact's newest open conversation, or None."""
        ...

    def list_by_contact_id(
        self, contact_id: str, *, limit: int = 100, cursor: str | None = None
    ) -> Page[Conversation]:
        """Return a page of the contact's conversations, newest first."""
        ...

    def close(self, conversation_id: str) -> Conversation:
        """Close the conversation; idempotent."""
        ...


class SyncMessageService(Protocol):
    """Sends and keeps messages. ``send`` sends once for each idempotency key."""

    def send(
        self,
        conversation_id: str,
        content: Mapping[str, object] | None = None,
        *,
        text: str | None = None,
        idempotency_key: str | None = None,
    ) -> Message:
        """Send to the contact; raises ConversationNotFound."""
        ...

    def receive(
        self, conversation_id: str, *, text: str, idempotency_key: str | None = None
    ) -> Message:
        """Keep what the contact sent."""
        ...

    def list(
        self, conversation_id: str, *, limit: int = 100, cursor: str | None = None
    ) -> Page[Message]:
        """Return a page of the conversation's messages, oldest first."""
        ...


class SyncStorageService(Protocol):
    """Keeps JSON and bytes of one module by key."""

    @overload
    def get(self, key: str) -> JsonValue: ...
    @overload
    def get(self, key: str, wanted: type[ValueT]) -> ValueT | None: ...
    def get(self, key: str, wanted: Any = None) -> Any:
        """Return the JSON under the key, as the type ``wanted`` if given; None if none."""
        ...

    def get_bytes(self, key: str) -> bytes | None:
        """Return the bytes under the key, or None."""
        ...

    def set(self, key: str, value: object, *, ttl: float | timedelta | None = None) -> None:
        """Keep the value, whatever was there."""
        ...

    def set_if_absent(
        self, key: str, value: object, *, ttl: float | timedelta | None = None
    ) -> bool:
        """Keep the value if nothing is there; True if that was done."""
        ...

    def compare_and_set(
        self, key: str, expected: object, value: object, *, ttl: float | timedelta | None = None
    ) -> bool:
        """Replace the value if it is still ``expected``; True if that was done."""
        ...

    def delete(self, key: str, *, expected: object = None) -> bool:
        """Delete the value, or only if it is ``expected``; True if that was done."""
        ...

    def list(
        self, prefix: str = "", *, limit: int = 100, cursor: str | None = None
    ) -> Page[StorageItem]:
        """Return a page of items whose keys begin with ``prefix``, by key."""
        ...


class SyncWorkflowService(Protocol):
    """Keeps runs of workflows. ``start`` with a run id of one's own starts once."""

    def start(
        self,
        name: str,
        input: object = None,  # noqa: A002 - its name
        *,
        run_id: str | None = None,
    ) -> WorkflowRun:
        """Start a run."""
        ...

    def get(self, run_id: str) -> WorkflowRun:
        """Return the run; raises WorkflowRunNotFound."""
        ...

    def list(
        self,
        name: str | None = None,
        *,
        status: WorkflowStatus | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[WorkflowRunSummary]:
        """Return a page of runs, newest first."""
        ...

    def resume(self, run_id: str) -> WorkflowRun:
        """Have a run go on, also one that failed."""
        ...

    def begin_step(
        self,
        run_id: str,
        step: int,
        name: str,
        *,
        resume: bool = False,
    ) -> WorkflowRun | None:
        """Return the run if this is its next step."""
        ...

    def end_step(
        self,
        run: WorkflowRun,
        name: str,
        result: object,
        *,
        is_last: bool,
    ) -> None:
        """Keep a step's result and publish the next step."""
        ...

    def fail(self, run_id: str, step: int, error: str) -> None:
        """Note that a run was given up."""
        ...
