"""A test that fails says why: the handler's traceback, the misspelt topic."""

from __future__ import annotations

import logging

import pytest

from convotic_celery import ConvoticContext, ConvoticModule, DeadLetter, WorkerMessage
from convotic_celery.errors import TopicHasNoSubscription
from convotic_celery.testing import convotic_app

module = ConvoticModule(name="shop", version="1.0.0")


@module.worker("custom.orders.new", max_retries=1)
async def charge(message: WorkerMessage, ctx: ConvoticContext) -> None:  # noqa: ARG001
    if message.data.get("reject"):
        raise DeadLetter("no order")
    raise RuntimeError(f"card of order {message.data['id']} was declined")


async def test_a_handler_s_traceback_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """From its own line on, for each run; pytest shows it with a test that fails."""
    async with convotic_app(module) as app:
        message_id = await app.publish("custom.orders.new", data={"id": 7})
        with caplog.at_level(logging.WARNING, "convotic_celery.testing"):
            await app.drain()

    first, last = caplog.messages
    assert first.startswith(f"custom.orders.new.shop {message_id} run 1 failed\nTraceback")
    assert f'File "{__file__}"' in first.splitlines()[2]
    assert first.endswith("RuntimeError: card of order 7 was declined")
    assert "dead letter, max-retries-exceeded" in last
    assert [run.error is not None for run in app.runs] == [True, True]


async def test_a_handler_s_error_is_raised_where_that_is_asked_for() -> None:
    """After its message is settled: the test may go on."""
    async with convotic_app(module, raise_errors=True) as app:
        await app.publish("custom.orders.new", data={"id": 7})

        with pytest.raises(RuntimeError, match="card of order 7 was declined"):
            await app.run_due()
        with pytest.raises(RuntimeError, match="card of order 7 was declined"):
            await app.drain()

        assert [run.outcome for run in app.runs] == ["retried", "dead_lettered"]
        assert len(app.dead_letters) == 1


async def test_an_outcome_that_a_handler_chooses_is_no_error() -> None:
    """DeadLetter, Retry and Drop are raised to be obeyed."""
    async with convotic_app(module, raise_errors=True) as app:
        await app.publish("custom.orders.new", data={"reject": True})

        (run,) = await app.drain()

    assert run.outcome == "dead_lettered"


async def test_a_misspelt_topic_is_an_error() -> None:
    """With the topic that may be meant; nothing would run, and the test would pass for nothing."""
    async with convotic_app(module) as app:
        with pytest.raises(TopicHasNoSubscription, match=r"Did you mean 'custom\.orders\.new'"):
            await app.publish("custom.orders.nwe", data={})
