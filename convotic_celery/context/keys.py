"""Names of keys in the store, all below one prefix, and how an address is indexed. Pure."""

from __future__ import annotations

__all__ = ["Keys", "normalize_email"]


class Keys:
    """Names of keys in the store, all below one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.contacts = f"{prefix}contacts"
        #: Prefixes of the keys of hashes.
        self.contact_hashes = f"{prefix}contact:"
        self.conversation_hashes = f"{prefix}conversation:"
        self.contacts_by_external_id = f"{prefix}contacts:by-external-id"
        #: Prefixes of the keys of workflows' runs, and of the indexes of runs.
        self.workflow_runs = f"{prefix}workflow:"
        self.workflow_indexes = f"{prefix}workflows:"
        self.schedule = f"{prefix}schedule"
        self.schedule_watch = f"{prefix}schedule:watch"

    def contacts_by_email(self, email: str) -> str:
        """Return the key of the sorted set of contacts with this address."""
        return f"{self.prefix}contacts:by-email:{normalize_email(email)}"

    def contact(self, contact_id: str) -> str:
        """Return the key of the contact's hash."""
        return f"{self.contact_hashes}{contact_id}"

    def conversations_of(self, contact_id: str) -> str:
        """Return the key of the sorted set of the contact's conversations."""
        return f"{self.contact_hashes}{contact_id}:conversations"

    def open_conversations_of(self, contact_id: str) -> str:
        """Return the key of the sorted set of those that are open."""
        return f"{self.contact_hashes}{contact_id}:conversations:open"

    def conversation(self, conversation_id: str) -> str:
        """Return the key of the conversation's hash."""
        return f"{self.conversation_hashes}{conversation_id}"

    def messages_of(self, conversation_id: str) -> str:
        """Return the key of the sorted set of the conversation's messages."""
        return f"{self.conversation(conversation_id)}:messages"

    def sent(self, conversation_id: str) -> str:
        """Return the key of the hash from idempotency key to message."""
        return f"{self.conversation(conversation_id)}:sent"

    def message(self, message_id: str) -> str:
        """Return the key of the message's hash."""
        return f"{self.prefix}message:{message_id}"

    def scheduled(self, schedule_id: str) -> str:
        """Return the key of the hash of a delayed message."""
        return f"{self.prefix}scheduled:{schedule_id}"

    def workflow_run(self, run_id: str) -> str:
        """Return the key of the hash of a workflow's run."""
        return f"{self.workflow_runs}{run_id}"

    def workflow_index(self, name: str, status: str) -> str:
        """Return the key of the sorted set of a workflow's runs in a state; "" for any."""
        return f"{self.workflow_indexes}{name}:{status}"

    def storage_item(self, module: str, key: str) -> str:
        """Return the key of the hash of one item of the module's storage."""
        return f"{self.prefix}storage:{module}:item:{key}"

    def storage_keys(self, module: str) -> str:
        """Return the key of the sorted set of the keys of the module's storage."""
        return f"{self.prefix}storage:{module}:keys"

    def storage_expiries(self, module: str) -> str:
        """Return the key of the sorted set of the items that expire, by time."""
        return f"{self.prefix}storage:{module}:expiries"


def normalize_email(email: str) -> str:
    """Return the address as it is indexed, ignoring case."""
    return email.strip().lower()
