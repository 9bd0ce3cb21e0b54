"""Every transition of a delivery, without anything that acts."""

from __future__ import annotations

import itertools

import pytest

from convotic_pubsub.consume.delivery import State
from convotic_pubsub.consume.flow import Effect, Event, Facts, Signal, transition
from convotic_pubsub.queue import Acknowledge, DeadLetter, Defer, Deliver, Lapse, Return, SendAgain

E = Effect
DELIVER, ACK, GIVE_UP = Deliver({}), Acknowledge(), DeadLetter({})
DEFER, LAPSE, RETURN, AGAIN = Defer(5), Lapse(5), Return(), SendAgain()
OPEN = (State.NEW, State.BUFFERED, State.DISPATCHED)
HELD = (*OPEN, State.DEAD_LETTERING)
NEW = Facts()

#: From, event, facts, to, effects. What is not here changes nothing.
TABLE: list[tuple[State, Event, Facts, State, tuple[E, ...]]] = [
    # How it gets to its consumer.
    (State.BUFFERED, Signal.SLOT_FREE, NEW, State.DISPATCHED, (E.TAKE_SLOT, E.DISPATCH)),
    # How it is settled, by policy or consumer, in any state before.
    *((s, DELIVER, NEW, State.BUFFERED, (E.ENQUEUE, E.WATCH)) for s in OPEN),
    *((s, DELIVER, Facts(is_stopping=True), State.RETURNING, (E.LEAVE, E.NACK)) for s in OPEN),
    *((s, ACK, NEW, State.SETTLING, (E.LEAVE, E.ACKNOWLEDGE)) for s in OPEN),
    *((s, RETURN, NEW, State.RETURNING, (E.LEAVE, E.NACK)) for s in OPEN),
    *((s, LAPSE, NEW, State.WAITING, (E.LEAVE, E.START_WAIT, E.SET_LEASE)) for s in OPEN),
    *((s, DEFER, NEW, State.WAITING, (E.LEAVE, E.START_WAIT, E.SET_LEASE)) for s in OPEN),
    *((s, GIVE_UP, NEW, State.DEAD_LETTERING, (E.WATCH, E.PUBLISH)) for s in OPEN),
    *((s, AGAIN, NEW, State.DEAD_LETTERING, (E.WATCH, E.PUBLISH)) for s in OPEN),
    *(
        (
            s,
            GIVE_UP,
            Facts(has_dead_letter_topic=False),
            State.SETTLING,
            (E.REPORT_NO_TOPIC, E.LEAVE, E.ACKNOWLEDGE),
        )
        for s in OPEN
    ),
    # What the answers lead to.
    (
        State.DEAD_LETTERING,
        Signal.PUBLISHED,
        NEW,
        State.SETTLING,
        (E.COUNT_DEAD_LETTER, E.LEAVE, E.ACKNOWLEDGE),
    ),
    (State.DEAD_LETTERING, Signal.SENT_AGAIN, NEW, State.SETTLING, (E.LEAVE, E.ACKNOWLEDGE)),
    (State.DEAD_LETTERING, Signal.PUBLISH_FAILED, NEW, State.WAITING, (E.LEAVE, E.KEEP_LEASE)),
    (State.SETTLING, Signal.CONFIRMED, NEW, State.GONE, (E.REMOVE_ACKNOWLEDGED,)),
    (State.SETTLING, Signal.REFUSED, NEW, State.GONE, (E.REMOVE,)),
    (State.RETURNING, Signal.CONFIRMED, NEW, State.GONE, (E.REMOVE,)),
    (State.RETURNING, Signal.REFUSED, NEW, State.GONE, (E.REMOVE,)),
    # A copy of a message that is here.
    *((s, Signal.COPIED, NEW, s, (E.WATCH,)) for s in HELD if s is not State.DISPATCHED),
    (
        State.DISPATCHED,
        Signal.COPIED,
        NEW,
        State.DISPATCHED,
        (E.WATCH, E.REPORT_LAPSE),
    ),
    (State.SETTLING, Signal.COPIED, NEW, State.SETTLING, (E.ACKNOWLEDGE,)),
    (State.WAITING, Signal.COPIED, NEW, State.GONE, (E.REMOVE,)),
    (State.RETURNING, Signal.COPIED, NEW, State.GONE, (E.REMOVE,)),
    # Leases.
    *((s, Signal.NOT_TAKEN, NEW, State.RETURNING, (E.LEAVE, E.NACK)) for s in OPEN),
    *((s, Signal.RENEWAL_DUE, NEW, s, (E.RENEW, E.WATCH)) for s in HELD),
    *((s, Signal.HOLD_ENDED, NEW, s, (E.WATCH_LEASE_END,)) for s in HELD),
    *((s, Signal.LEASE_ENDED, NEW, s, (E.REPORT_LAPSE,)) for s in HELD),
    (State.WAITING, Signal.LONGER_WAIT_DUE, NEW, State.WAITING, (E.SET_LEASE,)),
    (State.WAITING, Signal.LEASE_ENDED, NEW, State.GONE, (E.REMOVE,)),
]


@pytest.mark.parametrize(("state", "event", "facts", "to", "effects"), TABLE)
def test_a_transition(
    state: State, event: Event, facts: Facts, to: State, effects: tuple[E, ...]
) -> None:
    """Each row of the table: the new state, and what is done in which order."""
    assert transition(state, event, facts) == (to, effects)


def test_what_comes_too_late_changes_nothing() -> None:
    """An event that a state has no transition for: a second settlement, a late answer."""
    events = (*Signal, DELIVER, ACK, GIVE_UP, DEFER, LAPSE, RETURN, AGAIN)
    listed = [(state, event) for state, event, *_ in TABLE]

    for state, event in itertools.product(State, events):
        if not any(state is s and event is e for s, e in listed):
            assert transition(state, event, NEW) == (state, ())


def test_nothing_leads_back_from_gone() -> None:
    """Its slot, its bytes and its place in the stream are counted down once."""
    events = (*Signal, DELIVER, ACK, GIVE_UP, DEFER, LAPSE, RETURN, AGAIN)

    for event in events:
        assert transition(State.GONE, event, NEW) == (State.GONE, ())
