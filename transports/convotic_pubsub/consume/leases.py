"""The leases of one queue's deliveries: renewed, shortened, watched, and reported when they lapse.

How long each is, ``lease_schedule.py`` says. Belongs to the I/O thread.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from convotic_pubsub.consume.lease_schedule import LeaseSchedule

if TYPE_CHECKING:
    from convotic_pubsub.consume.delivery import Delivery
    from convotic_pubsub.consume.flow import Event
    from convotic_pubsub.consume.ports import Ports
    from convotic_pubsub.queue import QueueSpec

__all__ = ["Leases"]

logger = logging.getLogger(__name__)


class Leases:
    """Carries out the effects of ``flow.py`` that concern leases."""

    def __init__(self, spec: QueueSpec, ports: Ports) -> None:
        self.schedule = LeaseSchedule(spec)
        #: Since the start.
        self.renewals = 0
        self._queue = spec.queue
        self._ports = ports

    def watch(self, delivery: Delivery, _event: Event | None = None) -> None:
        """Look after the delivery when its schedule says so."""
        when = self.schedule.next_look(delivery, self._ports.clock())
        self._ports.timer.watch(delivery, when)

    def watch_lease_end(self, delivery: Delivery, _event: Event) -> None:
        """Look after the delivery when its lease has ended."""
        self._ports.timer.watch(delivery, delivery.lease_until)

    def renew(self, delivery: Delivery, _event: Event) -> None:
        """Renew the lease, unless it lasts for as long as the delivery may be held."""
        now = self._ports.clock()
        seconds = self.schedule.renewal(delivery, now)
        if seconds:
            self.renewals += 1
            self._modify(delivery, now, seconds)

    def set_lease(self, delivery: Delivery, _event: Event) -> None:
        """Have the lease end when the delivery's wait does."""
        now = self._ports.clock()
        self._modify(delivery, now, self.schedule.last_lease(delivery, now))
        self.watch(delivery)

    def keep_lease(self, delivery: Delivery, _event: Event) -> None:
        """Let the delivery wait until the lease ends that it has."""
        delivery.hold_until = delivery.lease_until
        self.watch(delivery)

    def _modify(self, delivery: Delivery, now: float, seconds: int) -> None:
        delivery.lease_until = now + seconds
        self._ports.acks.modify(delivery.ack_id, seconds, _ignore)

    def report_lapse(self, delivery: Delivery, _event: Event) -> None:
        """Report, once, a run that goes on after its time: its lease ends without us."""
        if delivery.lapse_seen or self._ports.clock() < delivery.hold_until:
            return
        delivery.lapse_seen = True
        logger.warning(
            "Message %s of queue %s still runs after its ack deadline; its lease has ended and "
            "Pub/Sub delivers it again",
            delivery.received.message_id,
            self._queue,
            extra={"action": "lease_lapsed", "queue": self._queue},
        )


def _ignore(_confirmed: bool) -> None:
    """A renewal that was not confirmed shows as a redelivery."""
