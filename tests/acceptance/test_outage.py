"""A worker without its broker: the short form of the hour in `make soak`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.soak.outage import lose_broker

if TYPE_CHECKING:
    from tests.acceptance.stage import Stage


def test_an_unavailable_broker_asks_for_no_restart(embedded_stage: Stage) -> None:
    """It makes the worker unready, names the queues, and is over when the broker is back."""
    outage = lose_broker(embedded_stage, seconds=16, messages=30)

    assert outage.holds, outage.show()
    assert "broker-unavailable" in outage.findings
    assert outage.repeated <= 2  # those whose acknowledgement was under way
