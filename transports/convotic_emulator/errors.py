"""What the server answers when it refuses: one exception a gRPC status.

::

    PubsubError(Exception)        code is the name of a grpc.StatusCode
    ├── InvalidArgument
    ├── NotFound
    ├── AlreadyExists
    ├── FailedPrecondition
    ├── PermissionDenied          as a fault only: access policies are stored, not enforced
    ├── ResourceExhausted         the disk is nearly full
    ├── Unavailable
    ├── Unimplemented             the reason says what is missing
    └── AckIdsFailed              exactly-once: which ack ids, and why
    StoreError(Exception)         the data folder can't be used; nothing in it was changed
    ResourcesError(Exception)     a mistake in the file of ``--resources``
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DETACHED",
    "AckIdsFailed",
    "AlreadyExists",
    "FailedPrecondition",
    "InvalidArgument",
    "NotFound",
    "PermissionDenied",
    "PubsubError",
    "ResourceExhausted",
    "ResourcesError",
    "StoreError",
    "Unavailable",
    "Unimplemented",
]


#: Why a subscription gives nothing any more, after DetachSubscription.
DETACHED = "The subscription is detached from its topic."


class PubsubError(Exception):
    """A request that is refused. The text goes to the client as the status message."""

    code = "INTERNAL"


class InvalidArgument(PubsubError):
    """The request breaks a rule of the service; the text names field and rule."""

    code = "INVALID_ARGUMENT"


class NotFound(PubsubError):
    """The resource does not exist."""

    code = "NOT_FOUND"

    @classmethod
    def of(cls, name: str) -> NotFound:
        """Return the service's text for a missing resource."""
        return cls(f"Resource not found (resource={name.rsplit('/', 1)[-1]}).")


class AlreadyExists(PubsubError):
    """The resource exists."""

    code = "ALREADY_EXISTS"

    @classmethod
    def of(cls, name: str) -> AlreadyExists:
        """Return the service's text for a resource that is there already."""
        return cls(f"Resource already exists in the project (resource={name.rsplit('/', 1)[-1]}).")


class FailedPrecondition(PubsubError):
    """The resource's state does not allow the request."""

    code = "FAILED_PRECONDITION"


class PermissionDenied(PubsubError):
    """A test has asked for this fault."""

    code = "PERMISSION_DENIED"


class ResourceExhausted(PubsubError):
    """There is no room for what was published."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(PubsubError):
    """The server is stopping, or can't write now; the client retries."""

    code = "UNAVAILABLE"


class Unimplemented(PubsubError):
    """Nothing was done: this server does not support what was asked for."""

    code = "UNIMPLEMENTED"


class AckIdsFailed(PubsubError):
    """Some ack ids of an exactly-once subscription were refused; the others took effect.

    ``failures`` is ``{ack_id: "PERMANENT_FAILURE_INVALID_ACK_ID"}``: it goes to the client as
    ErrorInfo metadata (https://cloud.google.com/pubsub/docs/exactly-once-delivery).
    """

    code = "INVALID_ARGUMENT"

    def __init__(self, failures: Mapping[str, str]) -> None:
        super().__init__("Some acknowledgement ids in the request were invalid.")
        self.failures = failures


class ResourcesError(Exception):
    """The file of resources has a mistake; the text names file, line and field."""


class StoreError(Exception):
    """The data file is damaged, of another version, or in use; it was not changed."""
