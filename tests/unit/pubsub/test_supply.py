"""How a consumer keeps itself supplied: what counts as full, and what waits too long."""

from __future__ import annotations

import pytest

from tests.unit.pubsub.test_consumer import Bench, turn


@pytest.mark.parametrize("settle", ["ack", "nack"])
async def test_a_settlement_under_way_is_no_reason_for_a_fresh_stream(settle: str) -> None:
    """The server has room again when it answers: reopening would cost a call for each message."""
    bench = Bench(concurrency=1, buffer_messages=1)
    bench.deliver("1")
    bench.deliver("2")

    getattr(bench.consumer, settle)(bench.run())
    await turn()

    assert bench.source.outstanding == bench.source.limit
    assert not bench.consumer.starves(bench.source)
    bench.acker.confirm()
    assert (bench.source.outstanding, bench.source.leaving) == (1, 0)
