"""A test that fails says why: the handler's traceback, the misspelt topic."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from convotic_celery import (
    ConvoticContext,
    ConvoticModule,
    DeadLetter,
    PublishRefused,
    WorkerMessage,
    pubsub,
)
from convotic_celery.errors import HandlerNotLoaded, PublishManyFailed, TopicHasNoSubscription
from convotic_celery.testing import AppUnderTest, convotic_app

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

    first, last = [
        each.getMessage()
        for each in caplog.records
        if each.name.startswith("convotic_celery.testing")
    ]
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


PUBLISHES: dict[str, Callable[[AppUnderTest, str], Awaitable[object]]] = {
    "app": lambda app, topic: app.publish(topic, data={}),
    "raw": lambda app, topic: app.publish_raw(topic, b"{}"),
    "ctx": lambda app, topic: app.ctx.pubsub.publish(topic, data={}),
    "plain ctx": lambda app, topic: asyncio.to_thread(app.sync_ctx.pubsub.publish, topic, data={}),
    "façade": lambda _, topic: pubsub.apublish(topic, data={}),
}


@pytest.mark.parametrize("how", PUBLISHES)
async def test_a_misspelt_topic_is_an_error(how: str) -> None:
    """However it is published; nothing would run, and the test would pass for nothing."""
    async with convotic_app(module) as app:
        with pytest.raises(TopicHasNoSubscription) as refused:
            await PUBLISHES[how](app, "custom.orders.nwe")

        assert app.published == []
    assert "Did you mean 'custom.orders.new'?" in str(refused.value)
    assert "Modules under test: shop." in str(refused.value)


async def test_many_and_delayed_ones_are_checked_too() -> None:
    """Many at once; a delayed one when it is due, as in production."""
    async with convotic_app(module) as app:
        with pytest.raises(PublishManyFailed, match=r"Did you mean 'custom\.orders\.new'"):
            await app.ctx.pubsub.publish_many("custom.orders.nwe", [{"data": 1}, {"data": 2}])
        await app.ctx.pubsub.publish("custom.orders.nwe", data=1, delay=60)

        with pytest.raises(TopicHasNoSubscription):
            await app.drain()


async def test_a_handler_that_publishes_to_nobody_fails() -> None:
    """Its own run, so that the test sees it; with the topic named, it is another module's."""
    chatty = ConvoticModule(name="chatty", version="1.0.0")

    @chatty.worker("custom.orders.new", max_retries=0)
    async def tell(message: WorkerMessage, ctx: ConvoticContext) -> None:
        await ctx.pubsub.publish("custom.orders.told", data=message.data)

    async with convotic_app(chatty) as app:
        await app.publish("custom.orders.new", data=1)
        (run,) = await app.drain()
    assert isinstance(run.error, TopicHasNoSubscription)

    async with convotic_app(chatty, topics=["custom.orders.told"]) as app:
        await app.publish("custom.orders.new", data=1)
        (run,) = await app.drain()
        assert run.outcome == "succeeded"
        assert [each.topic for each in app.published][1:] == ["custom.orders.told"]


async def test_a_task_that_nobody_runs_is_an_error() -> None:
    """A handler's name publishes to it; a misspelt one, or an ordinary task, would reach nobody."""
    async with convotic_app(module) as app:
        app.app.send_task("custom.orders.new.shop", [{"reject": True}])
        assert [run.outcome for run in await app.drain()] == ["dead_lettered"]

        with pytest.raises(HandlerNotLoaded, match=r"Did you mean custom\.orders\.new\.shop\?"):
            app.app.send_task("custom.orders.nwe.shop", [{}])

        @app.app.task(name="reports.build")
        def build() -> None: ...

        with pytest.raises(PublishRefused, match=r"call build\.apply\(\)"):
            build.delay()
