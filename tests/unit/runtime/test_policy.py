"""What becomes of a delivery before it is run: its attempt as far as it is known, and its run."""

from __future__ import annotations

from typing import Any

import pytest

from convotic_celery.runtime.delivery.policy import HandlerPolicy
from convotic_pubsub.queue import Acknowledge, Decision, Deliver
from tests.unit.runtime.support import define, receive


class Known:
    """Stands for the attempt log: failures that are not written yet."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures

    def known_failures(self, subscription: str, message_id: str) -> int:
        assert (subscription, message_id) == ("orders.new.shop", "m-1")
        return self.failures


def decide(delivery_attempt: int, known: Known | None = None, **received: Any) -> Decision:
    return HandlerPolicy(define(), known).decide(
        receive(delivery_attempt=delivery_attempt, **received)
    )


def facts(decision: Decision) -> dict[str, Any]:
    """Return the header of a message that is delivered."""
    assert isinstance(decision, Deliver), decision
    header: dict[str, Any] = decision.payload["headers"]["convotic"]
    return header


def test_a_first_delivery_has_no_run_to_look_up() -> None:
    """It costs the store nothing."""
    header = facts(decide(1, Known(3)))

    assert header["attempt"] == 1
    assert "run" not in header


@pytest.mark.parametrize("delivery_attempt", [0, 2, 99])
def test_a_redelivery_has_a_run_of_its_own(delivery_attempt: int) -> None:
    """How often Pub/Sub has delivered it says nothing; 0 is a subscription that does not count."""
    one, other = (facts(decide(delivery_attempt, Known())) for _ in range(2))

    assert one["attempt"] == 1
    assert one["run"] != other["run"]


def test_what_is_not_written_yet_counts() -> None:
    """While the store is unavailable this process's failures are all that is known."""
    assert facts(decide(9, Known(2)))["attempt"] == 3


def test_monitors_see_the_services_count_at_first() -> None:
    """The run asks the store later."""
    decision = decide(4, Known())

    assert isinstance(decision, Deliver)
    assert decision.payload["headers"]["retries"] == 3


@pytest.mark.parametrize(("delivery_attempt", "attempt"), [(0, 1), (1, 1), (6, 6)])
def test_without_a_store_the_service_counts(delivery_attempt: int, attempt: int) -> None:
    """attempt = delivery_attempt."""
    header = facts(decide(delivery_attempt))

    assert header["attempt"] == attempt
    assert "run" not in header


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
