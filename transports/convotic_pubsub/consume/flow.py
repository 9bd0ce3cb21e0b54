"""What becomes of a delivery: (state, event, facts) -> (new state, effects). Pure.

.. code-block:: text

    NEW ─> BUFFERED ─> DISPATCHED ─> SETTLING ──> GONE
                           │     ├─> RETURNING ─> GONE
                           │     └─> WAITING ───> GONE
                           └─> DEAD_LETTERING ─> SETTLING | WAITING

A message that is published again to its own topic goes the way of a dead letter.

Whatever is not settled yet can be settled in any state before. An event that a state has no
transition for came too late, and changes nothing.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, TypeAlias

from convotic_pubsub.consume.delivery import State
from convotic_pubsub.queue import (
    Acknowledge,
    DeadLetter,
    Defer,
    Deliver,
    Lapse,
    Return,
    SendAgain,
    Settlement,
)

__all__ = ["Effect", "Event", "Facts", "Signal", "Step", "transition"]


# Numbers, since these are looked up ten times a message: an Enum's hash is a call in Python.
class Signal(enum.IntEnum):
    """Events without data of their own."""

    #: It is its turn, and a slot is free.
    SLOT_FREE = enum.auto()
    #: The server has delivered the same message once more.
    COPIED = enum.auto()
    #: The dead letter is confirmed; or the copy in its own topic is; or neither.
    PUBLISHED = enum.auto()
    SENT_AGAIN = enum.auto()
    PUBLISH_FAILED = enum.auto()
    #: The server has answered the acknowledgement or the nack, for good; or refuses it.
    CONFIRMED = enum.auto()
    REFUSED = enum.auto()
    #: Of the lease's timer; see :meth:`.LeaseSchedule.look`.
    RENEWAL_DUE = enum.auto()
    LONGER_WAIT_DUE = enum.auto()
    NOT_TAKEN = enum.auto()
    HOLD_ENDED = enum.auto()
    LEASE_ENDED = enum.auto()


class Effect(enum.IntEnum):
    """What the subscription does, in the order given."""

    #: Ask to be called when something must be done about the lease.
    WATCH = enum.auto()
    #: The same, at the lease's end.
    WATCH_LEASE_END = enum.auto()
    ENQUEUE = enum.auto()
    TAKE_SLOT = enum.auto()
    DISPATCH = enum.auto()
    #: Free slot and buffer space, and let the next message of its key go on.
    LEAVE = enum.auto()
    ACKNOWLEDGE = enum.auto()
    #: From now on, wait for as long as the settlement says.
    START_WAIT = enum.auto()
    NACK = enum.auto()
    PUBLISH = enum.auto()
    COUNT_DEAD_LETTER = enum.auto()
    REPORT_NO_TOPIC = enum.auto()
    REPORT_LAPSE = enum.auto()
    RENEW = enum.auto()
    #: Have the lease of a waiting message end when its delay does.
    SET_LEASE = enum.auto()
    #: Wait for the lease's end, as it stands.
    KEEP_LEASE = enum.auto()
    #: The message is gone for good, or the server's again.
    REMOVE_ACKNOWLEDGED = enum.auto()
    REMOVE = enum.auto()


Event: TypeAlias = Deliver | Settlement | Signal


class Facts(NamedTuple):
    """What a transition depends on, beside the state."""

    is_stopping: bool = False
    has_dead_letter_topic: bool = True


class Step(NamedTuple):
    """The new state, and what is to be done."""

    state: State
    effects: tuple[Effect, ...] = ()


#: Not settled yet: a settlement takes effect.
_OPEN = {State.NEW, State.BUFFERED, State.DISPATCHED}
#: Held here, with a lease to be renewed.
_HELD = _OPEN | {State.DEAD_LETTERING}

_SETTLE = Step(State.SETTLING, (Effect.LEAVE, Effect.ACKNOWLEDGE))
_RETURN = Step(State.RETURNING, (Effect.LEAVE, Effect.NACK))
_WAIT = Step(State.WAITING, (Effect.LEAVE, Effect.START_WAIT, Effect.SET_LEASE))
_PUBLISH = Step(State.DEAD_LETTERING, (Effect.WATCH, Effect.PUBLISH))
_GIVE_UP_UNPUBLISHED = Step(State.SETTLING, (Effect.REPORT_NO_TOPIC, *_SETTLE.effects))
_BUFFER = Step(State.BUFFERED, (Effect.ENQUEUE, Effect.WATCH))
_RUN = Step(State.DISPATCHED, (Effect.TAKE_SLOT, Effect.DISPATCH))
_GONE = Step(State.GONE, (Effect.REMOVE,))

_SETTLEMENTS: dict[type[Event], Step] = {
    Deliver: _BUFFER,
    Acknowledge: _SETTLE,
    DeadLetter: _PUBLISH,
    Defer: _WAIT,
    SendAgain: _PUBLISH,
    Lapse: _WAIT,
    Return: _RETURN,
}

_SIGNALS: dict[tuple[State, Signal], Step] = {
    (State.BUFFERED, Signal.SLOT_FREE): _RUN,
    # The server takes the newest ack id only; a copy is never run beside its original.
    (State.SETTLING, Signal.COPIED): Step(State.SETTLING, (Effect.ACKNOWLEDGE,)),
    (State.WAITING, Signal.COPIED): _GONE,
    (State.RETURNING, Signal.COPIED): _GONE,
    # It runs past its deadline, and each copy gives it another lease.
    (State.DISPATCHED, Signal.COPIED): Step(State.DISPATCHED, (Effect.WATCH, Effect.REPORT_LAPSE)),
    (State.DEAD_LETTERING, Signal.PUBLISHED): Step(
        State.SETTLING, (Effect.COUNT_DEAD_LETTER, *_SETTLE.effects)
    ),
    (State.DEAD_LETTERING, Signal.SENT_AGAIN): _SETTLE,
    (State.DEAD_LETTERING, Signal.PUBLISH_FAILED): Step(
        State.WAITING, (Effect.LEAVE, Effect.KEEP_LEASE)
    ),
    (State.SETTLING, Signal.CONFIRMED): Step(State.GONE, (Effect.REMOVE_ACKNOWLEDGED,)),
    (State.SETTLING, Signal.REFUSED): _GONE,
    (State.RETURNING, Signal.CONFIRMED): _GONE,
    (State.RETURNING, Signal.REFUSED): _GONE,  # the lease ends by itself
    (State.WAITING, Signal.LONGER_WAIT_DUE): Step(State.WAITING, (Effect.SET_LEASE,)),
    (State.WAITING, Signal.LEASE_ENDED): _GONE,
    **{
        (state, Signal.COPIED): Step(state, (Effect.WATCH,)) for state in _HELD - {State.DISPATCHED}
    },
    **{(state, Signal.NOT_TAKEN): _RETURN for state in _OPEN},
    **{(state, Signal.RENEWAL_DUE): Step(state, (Effect.RENEW, Effect.WATCH)) for state in _HELD},
    # Taken but not started: it can no longer be given back.
    **{(state, Signal.HOLD_ENDED): Step(state, (Effect.WATCH_LEASE_END,)) for state in _HELD},
    **{(state, Signal.LEASE_ENDED): Step(state, (Effect.REPORT_LAPSE,)) for state in _HELD},
}


def transition(state: State, event: Event, facts: Facts) -> Step:
    """Return what an event leads to."""
    if isinstance(event, Signal):
        return _SIGNALS.get((state, event)) or Step(state)
    if state not in _OPEN:
        return Step(state)
    if isinstance(event, Deliver) and facts.is_stopping:
        return _RETURN
    if isinstance(event, DeadLetter) and not facts.has_dead_letter_topic:
        return _GIVE_UP_UNPUBLISHED
    return _SETTLEMENTS[type(event)]
