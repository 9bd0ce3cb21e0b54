"""The service google.pubsub.v1.Subscriber: subscriptions, pulling, acknowledging, seeking."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from google.protobuf import empty_pb2

from convotic_emulator.engine.delivery import FutureWaiter
from convotic_emulator.engine.lease import Consumer
from convotic_emulator.engine.names import check_name, check_project
from convotic_emulator.engine.registry import Subscription, in_project
from convotic_emulator.errors import (
    AckIdsFailed,
    InvalidArgument,
)
from convotic_emulator.services.changes import SUBSCRIPTION_FIELDS, changed_copy
from convotic_emulator.services.checks import (
    MAX_ACK_DEADLINE_SECONDS,
    check_pullable,
    complete_subscription,
)
from convotic_emulator.services.paging import page_of
from convotic_emulator.services.reply import fill_messages
from convotic_emulator.services.rpc import Method, parser, unary_call, unary_methods
from convotic_emulator.services.snapshots import SnapshotMethods
from convotic_emulator.services.streaming import StreamingPull
from convotic_protos import pubsub as t

if TYPE_CHECKING:
    from convotic_emulator.engine.engine import Engine
    from convotic_emulator.engine.rules import Proto
    from convotic_emulator.services.rpc import Call
    from convotic_emulator.storage.message import Message

__all__ = ["SubscriberService"]

_EMPTY = empty_pb2.Empty
_PULLED = t.PullResponse
_SUBSCRIPTIONS = t.ListSubscriptionsResponse

#: A pull answers this long before its client's deadline: an answer beats DEADLINE_EXCEEDED.
PULL_MARGIN_SECONDS = 1.0
#: For clients that set no deadline.
MAX_PULL_SECONDS = 90.0
#: Acknowledge and ModifyAckDeadline refuse more, https://cloud.google.com/pubsub/quotas.
MAX_ACK_REQUEST_BYTES = 512 * 1024

INVALID_ACK_ID = "PERMANENT_FAILURE_INVALID_ACK_ID"


class SubscriberService:
    """Methods of google.pubsub.v1.Subscriber."""

    NAME = "google.pubsub.v1.Subscriber"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def methods(self) -> dict[str, Method]:
        """Return methods by name."""
        table: dict[str, tuple[Any, Any]] = {
            "CreateSubscription": (self.create_subscription, t.Subscription),
            "GetSubscription": (self.get_subscription, t.GetSubscriptionRequest),
            "ListSubscriptions": (self.list_subscriptions, t.ListSubscriptionsRequest),
            "DeleteSubscription": (self.delete_subscription, t.DeleteSubscriptionRequest),
            "Acknowledge": (self.acknowledge, t.AcknowledgeRequest),
            "ModifyAckDeadline": (self.modify_ack_deadline, t.ModifyAckDeadlineRequest),
            "UpdateSubscription": (self.update_subscription, t.UpdateSubscriptionRequest),
            "ModifyPushConfig": (self.modify_push_config, t.ModifyPushConfigRequest),
            **SnapshotMethods(self._engine).table(),
        }
        methods = unary_methods(self._engine, table)
        methods["Pull"] = unary_call(self._engine, self.pull, t.PullRequest)
        methods["StreamingPull"] = Method(
            StreamingPull(self._engine).serve,
            parser(t.StreamingPullRequest),
            is_stream=True,
        )
        return methods

    async def create_subscription(self, request: Proto) -> Proto:
        """Create a subscription; it gets what is published from now on."""
        complete_subscription(request, self._engine.push_hosts)
        check_name(request.topic, "topics")
        self._engine.registry.topic(request.topic)
        if request.HasField("dead_letter_policy"):
            self._engine.registry.topic(request.dead_letter_policy.dead_letter_topic)
        self._engine.registry.create("subscription", request)
        created = self._engine.registry.subscription(request.name)
        self._engine.refresh_pushing(created)
        return self._shown(created)

    async def get_subscription(self, request: Proto) -> Proto:
        """Return a subscription."""
        return self._shown(self._subscription(request))

    async def list_subscriptions(self, request: Proto) -> Proto:
        """Return a page of a project's subscriptions."""
        project = check_project(request.project)
        found = in_project(self._engine.registry.subscriptions.values(), project)
        page, token = page_of(found, lambda subscription: subscription.row.name, request)
        return _SUBSCRIPTIONS(subscriptions=map(self._shown, page), next_page_token=token)

    async def update_subscription(self, request: Proto) -> Proto:
        """Change the fields of a subscription that the mask names."""
        name = check_name(request.subscription.name, "subscriptions")
        subscription = self._engine.registry.subscription(name)
        changed = changed_copy(
            subscription.proto, request.subscription, request.update_mask, SUBSCRIPTION_FIELDS
        )
        complete_subscription(changed, self._engine.push_hosts)
        if changed.HasField("dead_letter_policy"):
            self._engine.registry.topic(changed.dead_letter_policy.dead_letter_topic)
        self._change(subscription, changed)
        return self._shown(subscription)

    def _change(self, subscription: Subscription, changed: Proto) -> None:
        subscription.used_us = self._engine.clock.now_us()
        pushes_as_before = changed.push_config == subscription.proto.push_config
        subscription.proto = changed
        self._engine.registry.save(subscription)
        if not pushes_as_before:
            self._engine.refresh_pushing(subscription)

    async def modify_push_config(self, request: Proto) -> Proto:
        """Push to another endpoint from now on, or (without one) leave messages to be pulled."""
        subscription = self._subscription(request)
        changed = type(subscription.proto)()
        changed.CopyFrom(subscription.proto)
        changed.push_config.CopyFrom(request.push_config)
        complete_subscription(changed, self._engine.push_hosts)
        self._change(subscription, changed)
        return _EMPTY()

    async def delete_subscription(self, request: Proto) -> Proto:
        """Delete a subscription with its messages; its streams end with NOT_FOUND."""
        check_name(request.subscription, "subscriptions")
        self._engine.delete_subscription(request.subscription)
        return _EMPTY()

    async def pull(self, request: Proto, call: Call) -> Proto:
        """Lease messages; wait for the first until shortly before the client's deadline."""
        if request.max_messages <= 0:
            raise InvalidArgument(
                f"Invalid max_messages (value={request.max_messages}): it must be positive."
            )
        subscription = self._subscription(request)
        messages = await self._wait_for_messages(
            subscription,
            max_messages=request.max_messages,
            wait_seconds=0.0 if request.return_immediately else _pull_seconds(call),
        )
        response = _PULLED()
        fill_messages(subscription.state, response, messages)
        return response

    async def _wait_for_messages(
        self, subscription: Subscription, *, max_messages: int, wait_seconds: float
    ) -> list[Message]:
        check_pullable(subscription.proto)
        waiter = FutureWaiter(
            subscription.state,
            Consumer(),
            max_messages=max_messages,
            lease_seconds=subscription.proto.ack_deadline_seconds,
        )
        dispatcher = self._engine.dispatcher
        dispatcher.wait(waiter)
        timer = asyncio.get_running_loop().call_later(wait_seconds, waiter.give_up)
        try:
            return await waiter.result
        finally:
            timer.cancel()
            dispatcher.leave(waiter)

    async def acknowledge(self, request: Proto) -> Proto:
        """Remove messages; old ack ids have no effect."""
        _check_ack_request(request)
        subscription = self._subscription(request)
        now_us = self._engine.clock.now_us()
        refused = subscription.state.acknowledge(request.ack_ids, now_us)
        return await self._confirm(refused)

    async def modify_ack_deadline(self, request: Proto) -> Proto:
        """Set the deadline of messages to some seconds from now; 0 is a nack."""
        _check_ack_request(request)
        seconds = request.ack_deadline_seconds
        if not 0 <= seconds <= MAX_ACK_DEADLINE_SECONDS:
            raise InvalidArgument(
                f"Invalid ack deadline given (value={seconds}): it must be between 0 and 600."
            )
        subscription = self._subscription(request)
        changes = [(ack_id, seconds) for ack_id in request.ack_ids]
        return await self._confirm(subscription.state.modify(changes, self._engine.clock.now_us()))

    async def _confirm(self, refused: list[str]) -> Proto:
        """Answer once what took effect is committed; exactly-once names what did not."""
        if refused:
            await self._engine.commits.committed()
            raise AckIdsFailed(dict.fromkeys(refused, INVALID_ACK_ID))
        return _EMPTY()

    def _subscription(self, request: Proto) -> Subscription:
        name = check_name(request.subscription, "subscriptions")
        subscription = self._engine.registry.subscription(name)
        subscription.used_us = self._engine.clock.now_us()
        return subscription

    def _shown(self, subscription: Subscription) -> Proto:
        """Return a subscription with what it shows of its topic."""
        proto = subscription.proto
        topic = self._engine.registry.topics.get(proto.topic)
        if topic is None or not topic.retains:
            return proto
        shown = type(proto)()
        shown.CopyFrom(proto)
        shown.topic_message_retention_duration.CopyFrom(topic.proto.message_retention_duration)
        return shown


def _pull_seconds(call: Call) -> float:
    remaining: float | None = call.time_remaining()
    if remaining is None:
        return MAX_PULL_SECONDS
    return max(0.0, remaining - min(PULL_MARGIN_SECONDS, max(0.1, remaining / 10)))


def _check_ack_request(request: Proto) -> None:
    if not request.ack_ids:
        raise InvalidArgument("No ack ids specified.")
    if request.ByteSize() > MAX_ACK_REQUEST_BYTES:
        raise InvalidArgument(
            f"Request payload size exceeds the limit: {MAX_ACK_REQUEST_BYTES} bytes."
        )
