"""How long a queue's messages are held here, and when something must be done about it. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from convotic_pubsub.consume.delivery import Delivery, State
from convotic_pubsub.consume.flow import Signal
from convotic_pubsub.limits import MAX_LEASE_SECONDS, lease_seconds

if TYPE_CHECKING:
    from convotic_pubsub.queue import QueueSpec

__all__ = ["LeaseSchedule"]

#: Renewals ask for at most this much, so that a killed process is noticed early.
_MAX_STEP_SECONDS = 60
#: A lease is renewed when this share of a step is left, and never later than 3 s before its end.
_RENEW_SHARE, _RENEW_MIN_SECONDS = 0.25, 3.0
#: A handler's message that waits for a slot goes back this long before its lease's end: if a slot
#: were free later, its run would begin before the lease can be renewed, and another might begin.
_LAST_START_SECONDS = 1.0
#: Each message asks for these; see ``subscription.py``.
_WAITING, _DEAD_LETTERING = State.WAITING, State.DEAD_LETTERING


class LeaseSchedule:
    """The schedule of one queue. All times are seconds of the session's monotonic clock."""

    def __init__(self, spec: QueueSpec) -> None:
        self._wait_seconds = spec.ack_deadline_seconds
        self._max_seconds = spec.max_lease_seconds
        #: The lease that a message arrives with.
        self.first_seconds = lease_seconds(spec.ack_deadline_seconds)
        self._step = min(self.first_seconds, _MAX_STEP_SECONDS)
        self._renew_before = max(_RENEW_MIN_SECONDS, _RENEW_SHARE * self._step)

    def look(self, delivery: Delivery, now: float) -> Signal:
        """Return what its timer is to say of a delivery now."""
        if delivery.state is _WAITING:
            return Signal.LONGER_WAIT_DUE if self._waits_on(delivery, now) else Signal.LEASE_ENDED
        if self._is_due_to_others(delivery, now):
            return Signal.NOT_TAKEN
        return self.look_at_taken(delivery, now)

    def look_at_taken(self, delivery: Delivery, now: float) -> Signal:
        """Return the same for one that was taken, so that it can't be given back."""
        if now < self._bound(delivery):
            return Signal.RENEWAL_DUE
        return Signal.HOLD_ENDED if now < delivery.lease_until else Signal.LEASE_ENDED

    def _bound(self, delivery: Delivery) -> float:
        """Return until when a delivery may be held."""
        if delivery.state is _DEAD_LETTERING:
            return math.inf
        if self._max_seconds is not None:
            return delivery.received_at + self._max_seconds
        if delivery.hold_until:
            return delivery.hold_until
        bound = delivery.received_at + self._wait_seconds
        if delivery.lease_until < bound:
            return bound  # renewed before
        return min(bound, delivery.lease_until - _LAST_START_SECONDS)

    def next_look(self, delivery: Delivery, now: float) -> float:
        """Return when the next thing must be done about its lease."""
        if delivery.state is _WAITING:
            is_longer = delivery.hold_until > delivery.lease_until + 1.0
            return delivery.lease_until - (self._renew_before if is_longer else 0.0)
        bound, renewed_at = self._bound(delivery), delivery.lease_until - self._renew_before
        if bound > delivery.lease_until:
            return renewed_at
        if delivery.hold_until:
            return delivery.lease_until
        # That its run has begun may be noted only when its lease is looked at (``post_lazily``).
        return renewed_at if now < renewed_at < bound else bound

    def _waits_on(self, delivery: Delivery, now: float) -> bool:
        """Say whether a waiting message must be kept from the server longer."""
        return delivery.hold_until > delivery.lease_until + 1.0 and now < delivery.lease_until

    def last_lease(self, delivery: Delivery, now: float) -> int:
        """Return for how many seconds a waiting message is leased from now: its end, if it can."""
        return min(MAX_LEASE_SECONDS, max(1, round(delivery.hold_until - now)))

    def _is_due_to_others(self, delivery: Delivery, now: float) -> bool:
        """Say whether a message that was not taken here for an ack deadline should go to others."""
        if delivery.hold_until:
            return False
        if self._max_seconds is None:
            return now >= self._bound(delivery)
        # An ordinary message may just now be taken, and must then be renewed in time.
        return now >= delivery.received_at + self._wait_seconds - self._renew_before

    def renewal(self, delivery: Delivery, now: float) -> int:
        """Return for how many seconds the lease is to be renewed now; 0: it need not be."""
        bound = self._bound(delivery)
        if now < delivery.lease_until - self._renew_before or bound <= delivery.lease_until:
            return 0
        return min(self._step, math.ceil(bound - now))
