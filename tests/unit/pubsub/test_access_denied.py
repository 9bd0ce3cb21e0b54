"""What is said where access is denied: the permission that is missing, if the answer names it."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from convotic_protos import rpc
from convotic_pubsub.client.rpc import translate
from convotic_pubsub.errors import AccessDenied


def denied(details: str, **metadata: str) -> grpc.aio.AioRpcError:
    """Return an answer of the service; ``metadata`` is that of IAM's ErrorInfo."""
    trailing = grpc.aio.Metadata()
    if metadata:
        status = rpc.Status(code=7)
        info = rpc.ErrorInfo(
            reason="IAM_PERMISSION_DENIED", domain="iam.googleapis.com", metadata=metadata
        )
        status.details.add().Pack(info)
        trailing = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(
        grpc.StatusCode.PERMISSION_DENIED, grpc.aio.Metadata(), trailing, details, ""
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            denied("Permission 'pubsub.topics.publish' denied on resource (or it may not exist)."),
            "the credentials lack pubsub.topics.publish, which roles/pubsub.publisher gives",
        ),
        (
            denied("The caller does not have permission", permission="pubsub.subscriptions.get"),
            "the credentials lack pubsub.subscriptions.get, which roles/pubsub.viewer gives",
        ),
        (
            denied("denied", permission="pubsub.topics.create"),
            "the credentials lack pubsub.topics.create, which roles/pubsub.editor gives",
        ),
        (denied("User not authorized to perform this action."), "provision=verify needs"),
    ],
)
def test_a_refusal_names_what_is_missing(error: grpc.aio.AioRpcError, said: str) -> None:
    """The permission and the least role for it; all roles only where the answer is silent."""
    found = translate(error, "projects/p/topics/orders")

    assert isinstance(found, AccessDenied)
    assert str(found).startswith(f"projects/p/topics/orders: {error.details()}: ")
    assert said in str(found)
    assert ("check the credentials" in str(found)) == ("provision=" in said)
