"""What happens to messages: publish, fan-out, dead-lettering, seek, retention, expiration.

Synchronous and without I/O of its own; reads and writes go through the store, and become durable
when the caller commits. One event loop owns it.
"""

from __future__ import annotations

import os
from functools import cached_property
from itertools import repeat
from typing import TYPE_CHECKING

from convotic_emulator.engine.clock import SECOND_US, Clock
from convotic_emulator.engine.lease import Timers
from convotic_emulator.engine.names import project_of, short_name
from convotic_emulator.engine.plain import MIN_PACKED
from convotic_emulator.engine.registry import Registry, Snapshot, Subscription, Topic
from convotic_emulator.engine.rules import Proto, duration_us, rules_of
from convotic_emulator.engine.state import SubscriptionState
from convotic_emulator.storage.message import Message
from convotic_emulator.storage.packs import Pack
from convotic_emulator.storage.seeks import Seek
from convotic_emulator.storage.wire import SEED_BYTES, completion, message_ids, publish_time
from convotic_protos import pubsub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from convotic_emulator.storage.store import Store

__all__ = ["Broker"]

_MESSAGE = pubsub.PubsubMessage


class _Published:
    """What one request publishes, in the forms that backlogs take it in."""

    def __init__(
        self,
        first_seq: int,
        time_us: int,
        messages: Sequence[Proto],
        plain: Sequence[bytes] | None,
    ) -> None:
        seed = os.urandom(SEED_BYTES)
        self.messages = messages
        self.ids = message_ids(seed, first_seq, len(messages))
        self._first_seq = first_seq
        self._time_us = time_us
        self._seed = seed
        self._bodies = plain or [message.SerializeToString() for message in messages]
        self._keys = [] if plain else [message.ordering_key or None for message in messages]

    @cached_property
    def entries(self) -> list[tuple[int, int, str | None, bytes]]:
        """A row for each message."""
        time = publish_time(self._time_us)
        return [
            (seq, self._time_us, key, body + completion(message_id, time))
            for seq, (key, body, message_id) in enumerate(
                zip(self._keys or repeat(None), self._bodies, self.ids, strict=False),
                self._first_seq,
            )
        ]

    @cached_property
    def pack(self) -> Pack | None:
        """All together; None where they are few, or have ordering keys."""
        if len(self._bodies) < MIN_PACKED or any(self._keys):
            return None
        return Pack.of(self._first_seq, self._time_us, self._seed, self._bodies)


class Broker:
    """All messages of a server.

    ``wake`` is called with a subscription's state when something may have become deliverable.
    """

    def __init__(
        self, store: Store, clock: Clock, wake: Callable[[SubscriptionState], None]
    ) -> None:
        self.store = store
        self.clock = clock
        #: How late the next message is to be delivered; set by tests' faults.
        self.take_delay_us: Callable[[], int] | None = None
        self._wake = wake
        self._last_published_us = 0
        self.reload()

    def reload(self) -> None:
        """Read everything from the store, as after a kill."""
        store = self.store
        store.drop_unfinished_copies()
        self.timers = Timers()
        self.registry = Registry(store, self.clock, self._create_state)
        newest_us = [store.backlogs.newest_us(row.number) for row in store.resources.all()]
        self._last_published_us = max(newest_us, default=0)
        for number, leases in store.leases.read().items():
            subscription = self.registry.by_number.get(number)
            if subscription is not None and not subscription.proto.detached:
                subscription.state.restore(leases)
        for seek in store.seeks.unfinished():
            self.registry.by_number[seek.number].state.hold()
        self.fire_due()

    def fire_due(self) -> None:
        """Let leases lapse and back-offs end that are due."""
        self.timers.fire_due(self.clock.now_us())

    def publish(
        self, topic: Topic, messages: Sequence[Proto], plain: Sequence[bytes] | None = None
    ) -> list[str]:
        """Store checked messages for every subscription that wants them; return their ids.

        ``plain`` is what :func:`~convotic_emulator.engine.plain.plain_bodies` says of them.
        """
        first_seq = self.store.numbers.take_seqs(len(messages))
        now_us = self._last_published_us = max(self.clock.now_us(), self._last_published_us)
        published = _Published(first_seq, now_us, messages, plain)
        for subscription in list(topic.subscriptions.values()):
            self._deliver(subscription, published)
        for snapshot in topic.snapshots.values():
            self.store.backlogs.append(snapshot.row.number, published.entries)
        if topic.retains:
            self.store.backlogs.append(topic.row.number, published.entries)
        return published.ids

    def _deliver(self, subscription: Subscription, published: _Published) -> None:
        state, number, matches = subscription.state, subscription.row.number, subscription.matches
        is_plain = matches is None and self.take_delay_us is None
        if is_plain and not state.rules.retain_acknowledged and published.pack is not None:
            self.store.backlogs.append_pack(number, published.pack)
            state.add_unread()
            return
        entries = published.entries
        if matches is not None:
            entries = [
                entry
                for message, entry in zip(published.messages, entries, strict=True)
                if matches(message.attributes)
            ]
            if not entries:
                return
        self.store.backlogs.append(number, entries)
        fresh: list[Message] = []
        if state.backlog.caught_up or self.take_delay_us is not None:
            fresh = [Message(*e[:3], len(e[3]), e[3]) for e in entries]
        if self.take_delay_us is not None:
            self._delay(subscription, fresh, self.take_delay_us)
        state.add(fresh)

    def _delay(
        self, subscription: Subscription, messages: list[Message], take_us: Callable[[], int]
    ) -> None:
        for message in messages:
            if delay_us := take_us():
                message.due_us = message.published_us + delay_us
                self.store.backlogs.record_redelivery(subscription.row.number, [message])

    def _create_state(self, subscription: Subscription) -> SubscriptionState:
        return SubscriptionState(
            subscription.row.number,
            rules_of(subscription.proto),
            token=self.store.numbers.token,
            seeks=subscription.row.seeks,
            store=self.store,
            timers=self.timers,
            forward=self._forward,
            wake=self._wake,
        )

    def _forward(self, state: SubscriptionState, message: Message) -> bool:
        """Publish a message to its subscription's dead-letter topic; False if that is gone.

        Like the service's (https://cloud.google.com/pubsub/docs/handling-failures): a new message
        id, and four attributes beside the publisher's own.
        """
        subscription = self.registry.by_number[state.number]
        policy = subscription.proto.dead_letter_policy
        topic = self.registry.topics.get(policy.dead_letter_topic)
        body = self.store.backlogs.read_bodies(state.number, [message.seq]).get(message.seq)
        if topic is None or body is None:
            return body is None
        forwarded = _MESSAGE.FromString(body)
        name = subscription.row.name
        prefix = "CloudPubSubDeadLetterSource"
        forwarded.attributes[f"{prefix}DeliveryCount"] = str(message.attempts)
        forwarded.attributes[f"{prefix}Subscription"] = short_name(name)
        forwarded.attributes[f"{prefix}SubscriptionProject"] = project_of(name)
        published = forwarded.publish_time.ToJsonString()
        forwarded.attributes[f"{prefix}TopicPublishTime"] = published
        self.publish(topic, [forwarded])
        return True

    def begin_seek(
        self, subscription: Subscription, *, time_us: int | None, source: Topic | Snapshot | None
    ) -> Seek:
        """Write down a seek to a time or a snapshot; no leases and deliveries until it is done."""
        subscription.row.seeks += 1
        self.registry.save(subscription)
        seek = Seek(
            number=subscription.row.number,
            last_seq=self.store.numbers.last_seq,
            retain=subscription.proto.retain_acked_messages,
            time_us=time_us,
            source=0 if source is None else source.row.number,
        )
        self.store.seeks.begin(seek)
        subscription.state.begin_seek(subscription.row.seeks)
        return seek

    def seek(self, seek: Seek) -> Iterator[None]:
        """Do a seek, a slice at a time; stop if the subscription is deleted."""
        subscription = self.registry.by_number.get(seek.number)
        if subscription is None:
            return
        matches = subscription.matches

        def is_wanted(body: bytes) -> bool:
            return matches is None or matches(_MESSAGE.FromString(body).attributes)

        for _ in self.store.seeks.run(seek, is_wanted):
            yield
            if subscription.is_gone:
                return
        self.store.seeks.end(seek.number)
        subscription.state.reload()

    def copy(self, subscription: Subscription, snapshot: Snapshot) -> Iterator[None]:
        """Fill a new snapshot, a slice at a time; stop if one of the two is gone.

        What is acknowledged meanwhile may be in it. It gets what is published from now on anyway.
        """
        number, last_seq = snapshot.row.number, self.store.numbers.last_seq
        snapshot.is_complete = False
        self.store.seeks.begin_copy(number)
        for _ in self.store.seeks.copy(subscription.row.number, number, last_seq):
            yield
            if self.registry.snapshots.get(snapshot.row.name) is not snapshot:
                return
            if subscription.is_gone:
                self.registry.delete_snapshot(snapshot.row.name)
                return
        self.store.seeks.end_copy(number)
        snapshot.is_complete = True

    def trim(self) -> bool:
        """Delete some of what is past its retention; say whether there may be more."""
        now_us, more = self.clock.now_us(), False
        for subscription in self.registry.subscriptions.values():
            state = subscription.state
            oldest_us = now_us - state.rules.retention_us
            more |= self.store.backlogs.trim(subscription.row.number, oldest_us, state.outstanding)
        for topic in self.registry.topics.values():
            oldest_us = now_us - duration_us(topic.proto.message_retention_duration)
            more |= self.store.backlogs.trim(topic.row.number, oldest_us)
        return more

    def maintain(self, in_use: Callable[[SubscriptionState], bool]) -> list[str]:
        """Forget what is past; return the names of subscriptions that have expired."""
        now_us = self.clock.now_us()
        self.store.leases.forget_before(now_us)
        expired: list[str] = []
        for subscription in self.registry.subscriptions.values():
            state = subscription.state
            if in_use(state):
                subscription.used_us = now_us
                continue
            state.backlog.forget_ready()
            ttl = subscription.proto.expiration_policy.ttl
            if ttl.seconds and now_us - subscription.used_us > duration_us(ttl):
                expired.append(subscription.row.name)
        for snapshot in list(self.registry.snapshots.values()):
            if snapshot.proto.expire_time.seconds * SECOND_US < now_us:
                self.registry.delete_snapshot(snapshot.row.name)
        return expired
