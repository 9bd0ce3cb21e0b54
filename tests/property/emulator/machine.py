"""A Hypothesis machine over one subscription: publishes, takes, acks, lapses, seeks at will.

The server is restarted and its disk gets full in between.

It keeps a model of each message (live, acknowledged, dead-lettered) and of each ack id that was
ever given out, and compares.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from google.pubsub_v1.types import pubsub
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from convotic_emulator.engine.broker import Broker
from convotic_emulator.engine.clock import ManualClock
from convotic_emulator.engine.lease import Consumer
from convotic_emulator.services.checks import complete_subscription
from convotic_emulator.storage.store import MEMORY, Store

TOPIC = "projects/p/topics/orders"
DEAD = "projects/p/topics/orders.dead"
NAME = "projects/p/subscriptions/orders.sub"
KEEP = "projects/p/subscriptions/orders.dead"
SNAPSHOT = "projects/p/snapshots/orders"

LEASE_SECONDS = 10
MAX_ATTEMPTS = 5


@dataclass
class Delivery:
    """One ack id that was given out."""

    ack_id: str
    seq: int


@dataclass
class Known:
    """What the model knows of a message."""

    key: str
    state: str = "live"
    #: Who got it last.
    holder: Consumer | None = None
    #: The ack id of the newest delivery; only this may acknowledge.
    newest: str = ""
    attempt: int = 0
    deliveries: set[str] = field(default_factory=set)


class SubscriptionMachine(RuleBasedStateMachine):
    """The rules; subclasses choose the settings of the subscription."""

    ordered = False
    exactly_once = False
    retaining = False
    backoff_seconds = 0
    deliveries: Bundle[Delivery] = Bundle("deliveries")

    @initialize()
    def create(self) -> None:
        self.clock = ManualClock()
        self.store = Store(MEMORY)
        self.broker = Broker(self.store, self.clock, lambda _state: None)
        registry = self.broker.registry
        for topic in (TOPIC, DEAD):
            registry.create("topic", pubsub.Topic.pb()(name=topic))
        subscription = pubsub.Subscription.pb()(
            name=NAME,
            topic=TOPIC,
            enable_message_ordering=self.ordered,
            enable_exactly_once_delivery=self.exactly_once,
            retain_acked_messages=self.retaining,
        )
        subscription.dead_letter_policy.dead_letter_topic = DEAD
        subscription.dead_letter_policy.max_delivery_attempts = MAX_ATTEMPTS
        if self.backoff_seconds:
            subscription.retry_policy.minimum_backoff.seconds = self.backoff_seconds
            subscription.retry_policy.maximum_backoff.seconds = 4 * self.backoff_seconds
        for proto in (subscription, pubsub.Subscription.pb()(name=KEEP, topic=DEAD)):
            complete_subscription(proto)
            registry.create("subscription", proto)
        self.known: dict[int, Known] = {}
        self.forwarded = 0
        #: Two streams; other takes are pulls.
        self.streams = [Consumer(), Consumer()]

    @property
    def state(self) -> Any:
        return self.broker.registry.subscriptions[NAME].state

    @rule(count=st.sampled_from([1, 2, 4, 10, 12]), key=st.sampled_from(["", "a", "b"]))
    def publish(self, count: int, key: str) -> None:
        message = pubsub.PubsubMessage.pb()
        messages = [message(data=b"x", ordering_key=key) for _ in range(count)]
        ids = self.broker.publish(self.broker.registry.topics[TOPIC], messages)
        for identifier in ids:
            self.known[int(identifier) // 10**12] = Known(key if self.ordered else "")

    @rule(target=deliveries, count=st.integers(1, 4), units=st.integers(1, 4))
    def take_one(self, count: int, units: int) -> Delivery:
        taken = self.take(Consumer(), count, units)
        return taken[-1] if taken else Delivery("", 0)

    @rule(
        target=deliveries,
        stream=st.integers(0, 1),
        count=st.integers(1, 4),
        units=st.integers(1, 4),
    )
    def take_for_a_stream(self, stream: int, count: int, units: int) -> Delivery:
        taken = self.take(self.streams[stream], count, units)
        return taken[-1] if taken else Delivery("", 0)

    @rule(delivery=deliveries)
    def acknowledge(self, delivery: Delivery) -> None:
        if delivery.ack_id:
            leased = delivery.seq in self.state.outstanding
            refused = self.state.acknowledge([delivery.ack_id], self.clock.now_us())
            known = self.known[delivery.seq]
            counts = known.newest == delivery.ack_id and known.state == "live"
            if self.exactly_once:
                counts = counts and leased
                assert refused == ([] if counts else [delivery.ack_id])
            if counts:
                known.state = "acknowledged"

    @rule(delivery=consumes(deliveries))
    def nack(self, delivery: Delivery) -> None:
        self.modify(delivery, 0)

    @rule(delivery=deliveries, seconds=st.integers(1, 30))
    def modify(self, delivery: Delivery, seconds: int) -> None:
        if delivery.ack_id:
            self.state.modify([(delivery.ack_id, seconds)], self.clock.now_us())

    @rule(seconds=st.integers(1, 40))
    def advance(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.broker.fire_due()

    @rule()
    def restart(self) -> None:
        self.store.commit()
        self.broker = Broker(self.store, self.clock, lambda _state: None)

    @rule()
    def fill_disk(self) -> None:
        """What could not be written was not confirmed, and has not happened."""
        self.store.commit()
        message = pubsub.PubsubMessage.pb()(data=b"x", ordering_key="a")
        self.broker.publish(self.broker.registry.topics[TOPIC], [message])
        now_us = self.clock.now_us()
        taken = self.state.take(
            Consumer(), max_messages=2, max_bytes=1000, lease_us=1000, now_us=now_us
        )
        self.state.acknowledge([self.state.ack_id(m) for m in taken[:1]], now_us)
        self.state.expire(taken[1:], now_us)
        self.store.rollback()
        self.broker = Broker(self.store, self.clock, lambda _state: None)

    @rule()
    def purge(self) -> None:
        """Seek to the future."""
        self.seek(time_us=self.clock.now_us() + 1, source=None)

    @rule()
    def rewind(self) -> None:
        """Seek to the past: what was acknowledged comes back if it is retained."""
        self.seek(time_us=0, source=None)

    @precondition(lambda self: hasattr(self, "known"))
    @rule()
    def take_snapshot(self) -> None:
        registry = self.broker.registry
        if SNAPSHOT in registry.snapshots:
            registry.delete_snapshot(SNAPSHOT)
        proto = pubsub.Snapshot.pb()(name=SNAPSHOT, topic=TOPIC)
        proto.expire_time.seconds = 4_000_000_000
        registry.create("snapshot", proto)
        for _ in self.broker.copy(registry.subscriptions[NAME], registry.snapshots[SNAPSHOT]):
            pass

    @precondition(lambda self: SNAPSHOT in self.broker.registry.snapshots)
    @rule()
    def seek_to_snapshot(self) -> None:
        self.seek(time_us=None, source=self.broker.registry.snapshots[SNAPSHOT])

    def seek(self, *, time_us: int | None, source: Any) -> None:
        """Seek; learn which messages are live now, and check that they are the right ones."""
        self.note_dead_letters()
        before = self.store.backlogs.existing(self.state.number, self.known)
        wanted = set() if time_us else set(self.known) if self.retaining else before
        if source is not None:
            wanted = self.store.backlogs.existing(source.row.number, self.known)
        subscription = self.broker.registry.subscriptions[NAME]
        for _ in self.broker.seek(
            self.broker.begin_seek(subscription, time_us=time_us, source=source)
        ):
            pass
        assert not self.state.outstanding
        rows = self.store.backlogs.existing(self.state.number, self.known)
        dead = {seq for seq, known in self.known.items() if known.state == "dead"}
        assert rows - dead == wanted - dead
        for seq, known in self.known.items():
            if seq in rows:
                known.state, known.newest = "live", ""
                if seq not in before:
                    known.attempt = 0
            elif known.state == "live":
                known.state = "acknowledged"

    @rule()
    def tidy(self) -> None:
        self.broker.maintain(lambda _state: False)
        self.broker.trim()

    @invariant()
    def rows_are_the_live_messages(self) -> None:
        if not hasattr(self, "known"):
            return
        dead = self.note_dead_letters()
        state = self.state
        rows = self.store.backlogs.existing(state.number, self.known)
        for seq, known in self.known.items():
            if seq in rows:
                # An acknowledgement behind an unsettled message of its key is kept back.
                assert known.state == "live" or (known.key and known.state == "acknowledged")
            else:
                assert known.state in ("acknowledged", "dead"), (seq, known)
        places = [
            set(state.outstanding),
            set(state.backlog.again),
            set(state.backlog.delayed),
            {m.seq for m in state.backlog.ready},
            {m.seq for queue in state.backlog.keys.queues.values() for m in queue.next_up},
        ]
        assert sum(map(len, places)) == len(set().union(*places)), places
        assert not set().union(*places) - rows - dead
        assert self.store.counts.messages(state.number) == len(rows)

    def take(self, consumer: Consumer, count: int, units: int | None = None) -> list[Delivery]:
        taken = self.state.take(
            consumer,
            units=units,
            max_messages=count,
            max_bytes=1_000_000,
            lease_us=LEASE_SECONDS * 1_000_000,
            now_us=self.clock.now_us(),
        )
        deliveries = []
        before: list[int] = []
        for message in taken:
            known = self.known[message.seq]
            assert known.state != "dead"
            if known.state == "acknowledged":
                may_repeat = known.key and not self.exactly_once
                assert may_repeat, "an acknowledged message came back"
                known.state = "live"
            ack_id = self.state.ack_id(message)
            assert ack_id not in known.deliveries, "two deliveries share an ack id"
            assert message.attempts + 1 >= known.attempt, "attempts went down"
            known.deliveries.add(ack_id)
            known.newest, known.attempt = ack_id, message.attempts + 1
            known.holder = consumer
            self.check_order(message.seq, known, before)
            before.append(message.seq)
            deliveries.append(Delivery(ack_id, message.seq))
        return deliveries

    def check_order(self, seq: int, message: Known, before: list[int]) -> None:
        """No message is delivered while another consumer has an earlier one of its key."""
        if message.key:
            for other, known in self.known.items():
                if known.key == message.key and other < seq and known.state == "live":
                    is_here = known.holder is message.holder and other in self.state.outstanding
                    assert other in before or is_here, f"{seq} was delivered while {other} waits"

    def note_dead_letters(self) -> set[int]:
        number = self.broker.registry.subscriptions[KEEP].row.number
        copies = self.store.backlogs.read_page(number, 0, 100_000, 1 << 30)[0]
        rows = self.store.backlogs.existing(self.state.number, self.known)
        dead = set()
        gone = [s for s, k in self.known.items() if s not in rows and k.state == "live"]
        for seq in gone:
            self.known[seq].state = "dead"
            dead.add(seq)
        total = self.forwarded = self.forwarded + len(dead)
        assert total == len(copies), "a message is gone without acknowledgement or dead letter"
        assert total == self.store.counts.messages(number)
        assert total == self.store.counts.dead_letters(self.state.number)
        return dead

    def teardown(self) -> None:
        """All live messages are redelivered in the end: none is lost."""
        if not hasattr(self, "known"):
            return
        for _ in range(10 * (len(self.known) + 1)):
            live = {seq for seq, known in self.known.items() if known.state == "live"}
            if not live and not self.store.counts.messages(self.state.number):
                break
            for delivery in self.take(Consumer(), 1000):
                self.acknowledge(delivery)
            self.clock.advance(LEASE_SECONDS + 30)
            self.broker.fire_due()
            self.note_dead_letters()
        assert all(known.state != "live" for known in self.known.values())
        assert not self.store.counts.messages(self.state.number)
        self.store.close()
