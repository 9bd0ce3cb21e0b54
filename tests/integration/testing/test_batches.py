"""A handler of batches in ``convotic_app``: what a module's author tests it with."""

# ruff: noqa: ARG001 - handlers take (messages, ctx), used or not

from __future__ import annotations

from typing import Any

from convotic_celery import (
    BatchFailed,
    BatchOptions,
    ConvoticContext,
    ConvoticModule,
    WorkerMessage,
)
from convotic_celery.testing import convotic_app


def make_module(**options: Any) -> tuple[ConvoticModule, list[list[int]]]:
    """Return a module whose handler fails odd numbers below 10 on their first attempt."""
    module, calls = ConvoticModule(name="shop", version="1"), []

    @module.worker("numbers", batch=BatchOptions(max_size=4), **options)
    async def handle(messages: list[WorkerMessage[int]], ctx: ConvoticContext) -> None:
        calls.append([message.data for message in messages])
        failed = [m for m in messages if m.data < 10 and m.data % 2 and m.attempt == 1]
        if failed:
            raise BatchFailed([(m, ValueError("odd")) for m in failed])

    return module, calls


async def test_due_messages_are_called_together() -> None:
    """Up to max_size at once; those that failed are retried, each when it is due."""
    module, calls = make_module()
    async with convotic_app(module) as app:
        for number in range(6):
            await app.publish("numbers", data=number)
        runs = await app.drain()

    assert calls[:2] == [[0, 1, 2, 3], [4, 5]]
    assert sorted(n for call in calls[2:] for n in call) == [1, 3, 5]
    assert [run.outcome for run in runs].count("succeeded") == 6
    assert [run.outcome for run in runs].count("retried") == 3


async def test_an_invalid_message_never_reaches_its_batch() -> None:
    """It is dead-lettered as with any handler; the rest of its batch is called without it."""
    module, calls = make_module()
    async with convotic_app(module) as app:
        await app.publish_raw("numbers", b'"no number"')
        await app.publish("numbers", data=10)
        await app.drain()
        reasons = [dead.reason for dead in app.dead_letters]

    assert calls == [[10]]
    assert reasons == ["invalid"]


async def test_duplicates_are_skipped_one_by_one() -> None:
    """The key is each message's: what has succeeded in an earlier batch is not called again."""
    module, calls = make_module(deduplicate=lambda message: str(message.data))
    async with convotic_app(module) as app:
        for number in (10, 11, 10, 12):
            await app.publish("numbers", data=number)
        await app.drain()
        for number in (12, 13):
            await app.publish("numbers", data=number)
        runs = await app.drain()

    assert sorted(n for call in calls for n in call) == [10, 11, 12, 13]
    assert [run.outcome for run in runs] == ["duplicate", "succeeded"]
