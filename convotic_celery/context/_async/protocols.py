"""Protocols of the context's services, to be implemented by services of your own.

Each method does what the service of the same name in this package documents; see
``docs/modules.md``, "Services of your own".
"""

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
    "AsyncContactService",
    "AsyncConversationService",
    "AsyncMessageService",
    "AsyncStorageService",
    "AsyncWorkflowService",
]

ValueT = TypeVar("ValueT")


class AsyncContactService(Protocol):
    """Stores contacts. ``create`` raises ContactExists, also for concurrent calls."""

    async def get(self, contact_id: str) -> Contact:
        """Return the contact; raises ContactNotFound."""
        ...

    async def find_by_external_id(self, external_id: str) -> Contact | None:
        """Return the contact with this id in the other system, or None."""
        ...

    async def find_by_email(self, email: str) -> Contact | None:
        """Return the oldest contact with this address, or None."""
        ...

    async def create(self, **given: Unpack[ContactFields]) -> Contact:
        """Create a contact; raises ContactExists if the external id is taken."""
        ...

    async def find_or_create(self, **given: Unpack[ContactFields]) -> Contact:
        """Return the contact with this external id, created with these fields if there is none."""
        ...

    async def update(self, contact_id: str, **changes: Unpack[ContactChanges]) -> Contact:
        """Change the given fields; raises ContactNotFound and ContactExists."""
        ...

    async def add_tag(self, contact_id: str, tag: str) -> bool:
        """Tag the contact; True if it did not have the tag."""
        ...

    async def remove_tag(self, contact_id: str, tag: str) -> bool:
        """Remove the tag; True if the contact had it."""
        ...

    async def increment(
        self,
        contact_id: str,
        amounts: Mapping[str, int | Decimal],
        *,
        idempotency_key: str | None = None,
    ) -> bool:
        """Add to the totals, once per idempotency key."""
        ...

    async def list(self, *, limit: int = 100, cursor: str | None = None) -> Page[Contact]:
        """Return a page of contacts, oldest first."""
        ...

    async def count(self) -> int:
        """Return the number of contacts."""
        ...

    async def delete(self, contact_id: str) -> bool:
        """Delete the contact, its conversations and messages; True if it existed."""
        ...


class AsyncConversationService(Protocol):
    """Stores conversations with contacts."""

    async def create(self, contact_id: str, *, channel: str = "chat") -> Conversation:
        """Open a conversation; raises ContactNotFound."""
        ...

    async def get(self, conversation_id: str) -> Conversation:
        """Return the conversation; raises ConversationNotFound."""
        ...

    async def find_by_contact_id(self, contact_id: str) -> Conversation | None:
        """Return the contact's newest open conversation, or None."""
        ...

    async def list_by_contact_id(
        self, contact_id: str, *, limit: int = 100, cursor: str | None = None
    ) -> Page[Conversation]:
        """Return a page of the contact's conversations, newest first."""
        ...

    async def close(self, conversation_id: str) -> Conversation:
        """Close the conversation; idempotent."""
        ...


class AsyncMessageService(Protocol):
    """Sends and stores messages. ``send`` sends once per idempotency key."""

    async def send(
        self,
        conversation_id: str,
        content: Mapping[str, object] | None = None,
        *,
        text: str | None = None,
        idempotency_key: str | None = None,
    ) -> Message:
        """Send to the contact; raises ConversationNotFound."""
        ...

    async def receive(
        self, conversation_id: str, *, text: str, idempotency_key: str | None = None
    ) -> Message:
        """Store a message from the contact."""
        ...

    async def list(
        self, conversation_id: str, *, limit: int = 100, cursor: str | None = None
    ) -> Page[Message]:
        """Return a page of the conversation's messages, oldest first."""
        ...


class AsyncStorageService(Protocol):
    """Stores JSON and bytes of one module by key."""

    @overload
    async def get(self, key: str) -> JsonValue: ...
    @overload
    async def get(self, key: str, wanted: type[ValueT]) -> ValueT | None: ...
    async def get(self, key: str, wanted: Any = None) -> Any:
        """Return the JSON under the key, as the type ``wanted`` if given; None if none."""
        ...

    async def get_bytes(self, key: str) -> bytes | None:
        """Return the bytes under the key, or None."""
        ...

    async def set(self, key: str, value: object, *, ttl: float | timedelta | None = None) -> None:
        """Store the value, replacing any other."""
        ...

    async def set_if_absent(
        self, key: str, value: object, *, ttl: float | timedelta | None = None
    ) -> bool:
        """Store the value if the key is free; True if it was."""
        ...

    async def compare_and_set(
        self, key: str, expected: object, value: object, *, ttl: float | timedelta | None = None
    ) -> bool:
        """Replace the value if it is still ``expected``; True if that was done."""
        ...

    async def delete(self, key: str, *, expected: object = None) -> bool:
        """Delete the value, or only if it is ``expected``; True if that was done."""
        ...

    async def list(
        self, prefix: str = "", *, limit: int = 100, cursor: str | None = None
    ) -> Page[StorageItem]:
        """Return a page of items whose keys begin with ``prefix``, by key."""
        ...


class AsyncWorkflowService(Protocol):
    """Stores runs of workflows. ``start`` with a run id of your own starts once."""

    async def start(
        self,
        name: str,
        input: object = None,  # noqa: A002 - its name
        *,
        run_id: str | None = None,
    ) -> WorkflowRun:
        """Start a run."""
        ...

    async def get(self, run_id: str) -> WorkflowRun:
        """Return the run; raises WorkflowRunNotFound."""
        ...

    async def list(
        self,
        name: str | None = None,
        *,
        status: WorkflowStatus | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[WorkflowRunSummary]:
        """Return a page of runs, newest first."""
        ...

    async def resume(self, run_id: str) -> WorkflowRun:
        """Continue a run, also a failed one."""
        ...

    async def begin_step(
        self,
        run_id: str,
        step: int,
        name: str,
        *,
        resume: bool = False,
    ) -> WorkflowRun | None:
        """Return the run if this is its next step."""
        ...

    async def end_step(
        self,
        run: WorkflowRun,
        name: str,
        result: object,
        *,
        is_last: bool,
    ) -> None:
        """Store a step's result and publish the next step."""
        ...

    async def fail(self, run_id: str, step: int, error: str) -> None:
        """Record that a run has failed."""
        ...
