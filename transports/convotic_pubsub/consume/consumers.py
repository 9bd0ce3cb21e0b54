"""The queues that this process consumes: each a subscription, and the puller that supplies it.

Owned by the I/O thread, but for :meth:`Consumers.vitals`.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

from convotic_pubsub.consume.acks import AckBatcher
from convotic_pubsub.consume.delivery import Outstanding
from convotic_pubsub.consume.lease_timer import LeaseTimer
from convotic_pubsub.consume.outage import PullOutage
from convotic_pubsub.consume.ports import Ports
from convotic_pubsub.consume.streams import Puller
from convotic_pubsub.consume.subscription import Subscription
from convotic_pubsub.figures import QueueVitals
from convotic_pubsub.names import subscription_path

if TYPE_CHECKING:
    from convotic_pubsub.client.broker import Broker
    from convotic_pubsub.client.io_loop import IoLoop
    from convotic_pubsub.client.provisioning import Provisioner
    from convotic_pubsub.consume.delivery import Delivery
    from convotic_pubsub.consume.ports import Clock, Dispatch, PublishCopy
    from convotic_pubsub.queue import QueueSpec

__all__ = ["Consumers", "never_dispatched"]

#: How long pullers have for their end.
_END_SECONDS = 3.0


class Consumers:
    """Starts and stops consuming, and wires each subscription with what it needs.

    Args:
        project: where the subscriptions are.
        broker: the server.
        provisioner: creates what a pull finds missing.
        io: the I/O thread.
        clock: monotonic seconds.
        publish: publishes dead letters and copies.
    """

    def __init__(
        self,
        project: str,
        broker: Broker,
        provisioner: Provisioner,
        io: IoLoop,
        *,
        clock: Clock,
        publish: PublishCopy,
    ) -> None:
        #: Every delivery that is in this process.
        self.outstanding = Outstanding()
        #: Confirmed dead letters by queue.
        self.dead_lettered: Counter[str] = Counter()
        self._project = project
        self._broker = broker
        self._provisioner = provisioner
        self._io = io
        self._clock = clock
        self._publish = publish
        self._client_id = str(uuid.uuid4())
        self._outage = PullOutage()
        self._timer = LeaseTimer(clock, _lease_due, io.run_posted)
        self._ackers: dict[str, AckBatcher] = {}
        self._pulling: dict[Subscription, tuple[Puller, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def start(self, spec: QueueSpec, dispatch: Dispatch) -> Subscription:
        """Start to pull a queue; ``dispatch(delivery)`` is called for its messages."""
        subscription, puller = self._wire(spec, dispatch)
        task = asyncio.get_running_loop().create_task(puller.run())
        self._pulling[subscription] = puller, task
        return subscription

    def stop(self, subscription: Subscription) -> None:
        """Stop pulling, and give back what has not been taken; what runs keeps its lease."""
        subscription.stop()
        _, task = self._pulling.pop(subscription, (None, None))
        if task is not None:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def pull_one(self, spec: QueueSpec, dispatch: Dispatch) -> None:
        """Pull one message if there is one now, and call ``dispatch`` with it."""
        await self.acker(spec.subscription).wait_idle()
        await self._provisioner.ensure(spec)
        subscription, puller = self._wire(spec, dispatch)
        await puller.pull_now(1)
        await subscription.decided()

    async def end(self) -> None:
        """Stop all, and give back what will never be settled."""
        for subscription in list(self._pulling):
            self.stop(subscription)
        if self._ending:
            await asyncio.wait(self._ending, timeout=_END_SECONDS)
        for delivery in list(self.outstanding.values()):
            delivery.subscription.abandon(delivery)  # held for its ETA, say
        await asyncio.sleep(0)  # what abandon has posted
        await self.settled()

    async def settled(self) -> None:
        """Wait until the server has answered everything."""
        # Cancelled queues too, while messages of theirs are still here.
        owners: Any = (delivery.subscription for delivery in self.outstanding.values())
        await asyncio.gather(*(each.settled() for each in {*self._pulling, *owners}))
        await asyncio.gather(*(acker.wait_idle() for acker in self._ackers.values()))

    def acker(self, subscription: str) -> AckBatcher:
        """Return what sends a subscription's acknowledgements."""
        acker = self._ackers.get(subscription)
        if acker is None:
            path = subscription_path(self._project, subscription)
            acker = self._ackers[subscription] = AckBatcher(
                lambda: self._broker.acks, path, self._broker.replace_acks
            )
        return acker

    def _wire(self, spec: QueueSpec, dispatch: Dispatch) -> tuple[Subscription, Puller]:
        ports = Ports(
            clock=self._clock,
            post=self._io.post,
            post_lazily=self._io.post_lazily,
            acks=self.acker(spec.subscription),
            timer=self._timer,
            outstanding=self.outstanding,
            publish=self._publish,
            count_dead_letter=self._count_dead_letter,
        )
        subscription = Subscription(spec, ports, dispatch)
        subscription.is_control = dispatch is never_dispatched
        puller = Puller(
            subscription,
            self._broker,
            self._provisioner,
            clock=self._clock,
            project=self._project,
            client_id=self._client_id,
            outage=self._outage,
        )
        return subscription, puller

    def _count_dead_letter(self, queue: str) -> None:
        self.dead_lettered[queue] += 1

    # -- from any thread --------------------------------------------------------------------------

    def vitals(self, now: float) -> tuple[QueueVitals, ...]:
        """Return how the consumed queues are doing, whatever the I/O thread does."""
        pulling = list(self._pulling.items())  # one step under the interpreter's lock
        return tuple(
            self._vitals(subscription, puller, task, now)
            for subscription, (puller, task) in pulling
            if not subscription.is_control
        )

    def lease_behind_seconds(self, now: float) -> float:
        """Return by how much the most overdue lease should have been looked after earlier."""
        return self._timer.behind_seconds(now)

    def _vitals(
        self, subscription: Subscription, puller: Puller, task: asyncio.Task[None], now: float
    ) -> QueueVitals:
        acker = self._ackers.get(subscription.spec.subscription)
        return QueueVitals(
            queue=subscription.spec.queue,
            concurrency=subscription.concurrency,
            running=subscription.running,
            buffered=subscription.buffered,
            waiting=subscription.waiting,
            received=subscription.received,
            renewals=subscription.renewals,
            confirmations=subscription.confirmations,
            is_pulled=not task.done() or subscription.is_stopping,
            silent_seconds=now - puller.silent_since if puller.silent_since else 0.0,
            trouble=puller.trouble,
            unconfirmed_seconds=acker.unconfirmed_seconds(now) if acker else 0.0,
            heard_seconds=now - puller.heard_at if puller.heard_at else math.inf,
            oldest_published_at=subscription.oldest_published_at,
        )


def _lease_due(delivery: Delivery, now: float) -> None:
    owner: Any = delivery.subscription
    owner.lease_due(delivery, now)


def never_dispatched(_delivery: Delivery) -> None:
    """Stand in for a channel: a control subscription's messages are settled as they arrive."""
