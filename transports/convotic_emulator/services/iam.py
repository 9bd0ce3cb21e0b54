"""The service google.iam.v1.IAMPolicy: policies are stored data here; nothing enforces them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from convotic_emulator.errors import FailedPrecondition, InvalidArgument, NotFound
from convotic_emulator.services.changes import POLICY_FIELDS, changed_copy
from convotic_emulator.services.rpc import unary
from convotic_protos import iam

if TYPE_CHECKING:
    from convotic_emulator.engine.engine import Engine
    from convotic_emulator.engine.rules import Proto
    from convotic_emulator.services.rpc import Method

__all__ = ["IamService"]


class IamService:
    """Methods of google.iam.v1.IAMPolicy, for topics, subscriptions, snapshots and schemas."""

    NAME = "google.iam.v1.IAMPolicy"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._resources = engine.store.resources

    def methods(self) -> dict[str, Method]:
        """Return methods by name."""
        table = {
            "SetIamPolicy": (self.set_policy, iam.SetIamPolicyRequest),
            "GetIamPolicy": (self.get_policy, iam.GetIamPolicyRequest),
            "TestIamPermissions": (
                self.answer_permissions,
                iam.TestIamPermissionsRequest,
            ),
        }
        return {name: unary(self._engine, *entry) for name, entry in table.items()}

    async def set_policy(self, request: Proto) -> Proto:
        """Store the policy of a resource, unless it has changed since the given etag."""
        current = self._policy(request.resource)
        if request.policy.etag and request.policy.etag != current.etag:
            raise FailedPrecondition("The policy has changed since it was read (etag).")
        policy = iam.Policy()
        if request.update_mask.paths:
            policy = changed_copy(current, request.policy, request.update_mask, POLICY_FIELDS)
        else:
            policy.CopyFrom(request.policy)
        policy.etag = b""
        policy.etag = hashlib.sha256(policy.SerializeToString(deterministic=True)).digest()[:8]
        self._resources.save_policy(request.resource, policy.SerializeToString())
        return policy

    async def get_policy(self, request: Proto) -> Proto:
        """Return the policy of a resource; an empty one by default."""
        return self._policy(request.resource)

    async def answer_permissions(self, request: Proto) -> Proto:
        """Grant every permission that is asked about; none on what does not exist."""
        for permission in request.permissions:
            if "*" in permission:
                raise InvalidArgument(
                    f"Invalid permission {permission!r}: wildcards are not allowed."
                )
        granted = request.permissions if self._exists(request.resource) else ()
        return iam.TestIamPermissionsResponse(permissions=granted)

    def _policy(self, resource: str) -> Proto:
        if not self._exists(resource):
            raise NotFound.of(resource)
        body = self._resources.policy(resource)
        return iam.Policy.FromString(body or b"")

    def _exists(self, resource: str) -> bool:
        registry = self._engine.registry
        return any(
            resource in resources
            for resources in (
                registry.topics,
                registry.subscriptions,
                registry.snapshots,
                registry.schemas,
            )
        )
