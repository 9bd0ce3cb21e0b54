"""The service convotic.emulator.v1.Status: what the API of Pub/Sub does not tell.

The real service has such figures in Cloud Monitoring, minutes late. One method::

    CountMessages(google.protobuf.ListValue [names of subscriptions]) -> google.protobuf.Struct
    {"projects/p/subscriptions/s": {"messages": 12, "leased": 3, "oldest_published_at": 1.7e9}}

``messages`` are all unacknowledged ones, ``leased`` those that a consumer holds. Subscriptions that
do not exist are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf import struct_pb2

from convotic_emulator.engine.clock import SECOND_US
from convotic_emulator.services.rpc import unary

if TYPE_CHECKING:
    from convotic_emulator.engine.engine import Engine
    from convotic_emulator.engine.registry import Subscription
    from convotic_emulator.engine.rules import Proto
    from convotic_emulator.services.rpc import Method

__all__ = ["StatusService"]


class StatusService:
    """Methods of convotic.emulator.v1.Status."""

    NAME = "convotic.emulator.v1.Status"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def methods(self) -> dict[str, Method]:
        """Return methods by name."""
        return {"CountMessages": unary(self._engine, self.count_messages, struct_pb2.ListValue)}

    async def count_messages(self, request: Proto) -> Proto:
        """Count the messages of subscriptions."""
        answer = struct_pb2.Struct()
        for value in request.values:
            subscription = self._engine.registry.subscriptions.get(value.string_value)
            if subscription is not None:
                answer.fields[value.string_value].struct_value.update(self._count(subscription))
        return answer

    def _count(self, subscription: Subscription) -> dict[str, float | None]:
        store, number = self._engine.store, subscription.row.number
        oldest_us = store.backlogs.oldest_us(number)
        return {
            "messages": store.counts.messages(number),
            "leased": len(subscription.state.outstanding),
            "oldest_published_at": None if oldest_us is None else oldest_us / SECOND_US,
        }
