"""Update requests: which fields may change, and how a field mask is applied.

Source: the ``update_mask`` fields in the API reference. What can't be changed is refused with
INVALID_ARGUMENT, as the service does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convotic_emulator.errors import InvalidArgument

if TYPE_CHECKING:
    from convotic_emulator.engine.rules import Proto

__all__ = [
    "POLICY_FIELDS",
    "SNAPSHOT_FIELDS",
    "SUBSCRIPTION_FIELDS",
    "TOPIC_FIELDS",
    "changed_copy",
]

TOPIC_FIELDS = frozenset(
    {
        "ingestion_data_source_settings",
        "kms_key_name",
        "labels",
        "message_retention_duration",
        "message_storage_policy",
        "message_transforms",
        "schema_settings",
    }
)
SUBSCRIPTION_FIELDS = frozenset(
    {
        "ack_deadline_seconds",
        "bigquery_config",
        "cloud_storage_config",
        "dead_letter_policy",
        "enable_exactly_once_delivery",
        "expiration_policy",
        "labels",
        "message_retention_duration",
        "message_transforms",
        "push_config",
        "retain_acked_messages",
        "retry_policy",
    }
)
SNAPSHOT_FIELDS = frozenset({"expire_time", "labels"})
POLICY_FIELDS = frozenset({"audit_configs", "bindings", "etag", "version"})


def changed_copy(current: Proto, wanted: Proto, mask: Proto, allowed: frozenset[str]) -> Proto:
    """Return a copy of ``current`` with the fields of ``mask`` as in ``wanted``."""
    if not mask.paths:
        raise InvalidArgument("The update_mask must name at least one field.")
    for path in mask.paths:
        if not _exists(current.DESCRIPTOR, path):
            raise InvalidArgument(f"Invalid update_mask: there is no field {path!r}.")
        if path.split(".", 1)[0] not in allowed:
            raise InvalidArgument(f"Invalid update_mask: {path!r} can't be changed.")
    changed = type(current)()
    changed.CopyFrom(current)
    try:
        mask.MergeMessage(wanted, changed, True, True)  # replace, don't merge
    except ValueError as error:
        raise InvalidArgument(f"Invalid update_mask: {error}") from None
    return changed


def _exists(descriptor: Any, path: str) -> bool:
    """Return whether a message type has the field at ``path``, ``a.b.c``."""
    for name in path.split("."):
        field = None if descriptor is None else descriptor.fields_by_name.get(name)
        if field is None:
            return False
        # The type of a map's or a list's entries has no path.
        descriptor = None if field.is_repeated else field.message_type
    return True
