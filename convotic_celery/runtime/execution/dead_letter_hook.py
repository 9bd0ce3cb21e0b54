"""Calls ``on_dead_letter`` for a message that fails. Whatever the hook raises changes nothing."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING

from convotic_celery.runtime.execution.coroutine import explain
from convotic_celery.runtime.execution.exits import STOPS, stops_worker
from convotic_celery.sdk.dead_lettered import DeadLettered

if TYPE_CHECKING:
    from convotic_celery.runtime.delivery.payload import MessageFacts
    from convotic_celery.runtime.delivery.settlement import Fail
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = ["call_hook_async", "call_hook_sync", "describe"]

logger = logging.getLogger(__name__)


async def call_hook_async(definition: HandlerDefinition, dead: DeadLettered, ctx: object) -> None:
    """Call the hook, which has half of ``deadline_grace``, and await it if it is async."""
    hook = definition.options.on_dead_letter
    if hook is None:
        return
    try:
        async with asyncio.timeout(max(1.0, definition.options.deadline_grace / 2)):
            result = hook(dead, ctx)
            if inspect.isawaitable(result):
                await result
    except BaseException as raised:
        if explain(raised) is raised and issubclass(type(raised), STOPS):
            raise  # not its own: the run is stopped
        logger.exception("on_dead_letter of %s failed", definition.queue)


def call_hook_sync(definition: HandlerDefinition, dead: DeadLettered, ctx: object) -> None:
    """Call a plain hook."""
    hook = definition.options.on_dead_letter
    if hook is None:
        return
    try:
        hook(dead, ctx)
    except BaseException as raised:
        if stops_worker(raised):
            raise
        logger.exception("on_dead_letter of %s failed", definition.queue)


def describe(
    definition: HandlerDefinition, fail: Fail, error: Exception, raw: bytes, facts: MessageFacts
) -> DeadLettered:
    """Return what the hook is given."""
    return DeadLettered(
        message_id=facts["message_id"],
        topic=definition.topic,
        data=b"" if facts["empty"] else raw,
        attributes=facts["attributes"],
        published_at=facts["published_at"],
        attempts=fail.attempts,
        reason=fail.reason,
        error=error,
    )
