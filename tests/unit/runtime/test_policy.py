"""What becomes of a delivery, by the two budgets of delivery.md."""

from __future__ import annotations

from typing import Any

import pytest

from convotic_celery.runtime.delivery.policy import HandlerPolicy
from convotic_pubsub.queue import Acknowledge, DeadLetter, Decision, Deliver, History, Incident
from tests.unit.runtime.support import define, receive


def decide(
    delivery_attempt: int,
    history: History | None = None,
    *,
    max_retries: int = 2,
    max_worker_losses: int = 3,
    **received: Any,
) -> Decision:
    policy = HandlerPolicy(
        define(max_retries=max_retries, max_worker_losses=max_worker_losses), None
    )
    return policy.decide(receive(delivery_attempt=delivery_attempt, **received), history)


def facts(decision: Decision) -> tuple[int, int]:
    """Return (attempt, losses) of a message that is delivered."""
    assert isinstance(decision, Deliver), decision
    header = decision.payload["headers"]["convotic"]
    assert decision.payload["headers"]["retries"] == header["attempt"] - 1
    return header["attempt"], header["losses"]


def reason(decision: Decision) -> tuple[str, str]:
    """Return reason and attempts of a message that is given up."""
    assert isinstance(decision, DeadLetter), decision
    return (
        decision.attributes["convotic-dead-letter-reason"],
        decision.attributes["convotic-dead-letter-attempts"],
    )


@pytest.mark.parametrize("delivery_attempt", [0, 1])
def test_a_first_delivery_is_run(delivery_attempt: int) -> None:
    """Also where the service does not count (0)."""
    assert facts(decide(delivery_attempt)) == (1, 0)


def test_failures_decide_the_attempt() -> None:
    """One failure in the store: the second attempt, whatever Pub/Sub counts."""
    assert facts(decide(2, History(failures=1))) == (2, 0)
    assert facts(decide(9, History(failures=1, hand_backs=7))) == (2, 0)


def test_deliveries_beyond_failures_and_hand_backs_are_losses() -> None:
    """A killed process costs a loss and no attempt."""
    assert facts(decide(4, History(failures=1, hand_backs=1))) == (2, 1)


def test_losses_are_never_negative() -> None:
    """Pub/Sub's count is approximate and can be behind."""
    assert facts(decide(2, History(failures=1, hand_backs=5))) == (2, 0)


def test_the_budget_of_losses_ends_in_the_dead_letter_topic() -> None:
    """After max_worker_losses the message takes no further process down."""
    assert facts(decide(3, History())) == (1, 2)
    assert reason(decide(4, History())) == ("worker-lost", "3")


def test_failures_that_are_used_up_end_there_too() -> None:
    """The process died between the last failure's record and its dead letter."""
    assert facts(decide(3, History(failures=2))) == (3, 0)
    assert reason(decide(4, History(failures=3))) == ("max-retries-exceeded", "3")


def test_without_a_store_the_service_counts() -> None:
    """attempt = delivery_attempt; both budgets together end it."""
    assert facts(decide(2)) == (2, 0)
    assert facts(decide(6)) == (6, 0)
    assert reason(decide(7)) == ("worker-lost", "6")


def tell(dead: Any, ctx: Any) -> None:
    """Stand for a hook."""


def decide_with_hook(delivery_attempt: int, history: History | None) -> Decision:
    definition = define(max_retries=2, max_worker_losses=3, on_dead_letter=tell)
    return HandlerPolicy(definition, None).decide(
        receive(delivery_attempt=delivery_attempt), history
    )


@pytest.mark.parametrize(
    ("delivery_attempt", "history", "reason", "attempts"),
    [
        (4, History(), "worker-lost", 3),
        (6, History(), "worker-lost", 5),
        (7, None, "worker-lost", 6),
        (4, History(failures=3), "max-retries-exceeded", 3),
        (9, History(failures=3, hand_backs=1), "max-retries-exceeded", 3),
    ],
)
def test_with_a_hook_there_is_one_more_run_that_calls_it(
    delivery_attempt: int, history: History | None, reason: str, attempts: int
) -> None:
    """Whoever gives up a message that no run decided on has its hook told in the pool."""
    decision = decide_with_hook(delivery_attempt, history)

    assert isinstance(decision, Deliver)
    header = decision.payload["headers"]["convotic"]
    assert (header["give_up"], header["attempt"]) == (reason, attempts)


@pytest.mark.parametrize(
    ("delivery_attempt", "history"),
    [(7, History()), (10, None), (10, History(failures=3))],
)
def test_a_hook_that_takes_processes_down_is_left_out(
    delivery_attempt: int, history: History | None
) -> None:
    """After three of them: nothing keeps a message from its dead-letter topic."""
    assert isinstance(decide_with_hook(delivery_attempt, history), DeadLetter)


@pytest.mark.parametrize(("target", "runs"), [("orders.new.shop", True), ("orders.new.crm", False)])
def test_a_message_for_another_handler_is_acknowledged(target: str, runs: bool) -> None:
    """Google's emulator does not apply filters."""
    decision = decide(1, attributes={"convotic-target": target})

    if runs:
        assert isinstance(decision, Deliver)
    else:
        assert decision == Acknowledge("other-target")


def test_what_celery_refuses_has_a_dead_letters_attributes() -> None:
    """The transport asks for them on reject(requeue=False)."""
    attributes = HandlerPolicy(define(), None).reject_attributes(receive())

    assert attributes["convotic-dead-letter-reason"] == "rejected"
    assert attributes["convotic-dead-letter-message-id"] == "m-1"


class Memory:
    """Stands for the attempt log."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    async def recall(self, subscription: str, message_id: str) -> tuple[int, int]:
        self.calls.append(("recall", subscription, message_id))
        return 2, 1

    async def record(
        self, subscription: str, message_id: str, incident: Incident, ttl_seconds: float
    ) -> None:
        self.calls.append(("record", subscription, message_id, incident, ttl_seconds))

    async def forget(self, subscription: str, message_id: str) -> None:
        self.calls.append(("forget", subscription, message_id))


async def test_counts_are_kept_as_long_as_the_message() -> None:
    """Recall, record and forget go to the log, by Pub/Sub's own message id."""
    memory = Memory()
    policy = HandlerPolicy(define(retention=3600), memory)
    received = receive(attributes={"convotic-message-id": "first"})

    history = await policy.load_history(received)
    await policy.record(received, "failure")
    await policy.forget(received)

    assert history == History(failures=2, hand_backs=1)
    assert memory.calls == [
        ("recall", "orders.new.shop", "m-1"),
        ("record", "orders.new.shop", "m-1", "failure", 3600),
        ("forget", "orders.new.shop", "m-1"),
    ]
