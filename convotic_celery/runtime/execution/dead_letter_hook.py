"""Calls ``on_dead_letter`` for a message whose run was its last. Its failure changes nothing."""

from __future__ import annotations

import asyncio
import inspect
import logging
from datetime import datetime
from typing import TYPE_CHECKING

from convotic_celery.runtime.delivery.outcome import reason_of
from convotic_celery.runtime.execution.invoke import build_delivery
from convotic_celery.sdk.dead_lettered import DeadLettered

if TYPE_CHECKING:
    from convotic_celery.runtime.delivery.payload import MessageFacts
    from convotic_celery.runtime.execution.invoke import Execution

__all__ = ["tell_dead_letter_async", "tell_dead_letter_sync"]

logger = logging.getLogger(__name__)


async def tell_dead_letter_async(
    execution: Execution, error: Exception, raw: bytes, facts: MessageFacts
) -> None:
    """Call the hook, which has half of ``deadline_grace``, and await it if it is async."""
    options = execution.definition.options
    assert options.on_dead_letter is not None
    ctx = execution.contexts.async_context(build_delivery(execution.definition, facts))
    try:
        async with asyncio.timeout(max(1.0, options.deadline_grace / 2)):
            result = options.on_dead_letter(_describe(execution, error, raw, facts), ctx)
            if inspect.isawaitable(result):
                await result
    except Exception:
        logger.exception("on_dead_letter of %s failed", execution.definition.queue)


def tell_dead_letter_sync(
    execution: Execution, error: Exception, raw: bytes, facts: MessageFacts
) -> None:
    """Call a plain hook."""
    hook = execution.definition.options.on_dead_letter
    assert hook is not None
    ctx = execution.contexts.sync_context(build_delivery(execution.definition, facts))
    try:
        hook(_describe(execution, error, raw, facts), ctx)
    except Exception:
        logger.exception("on_dead_letter of %s failed", execution.definition.queue)


def _describe(
    execution: Execution, error: Exception, raw: bytes, facts: MessageFacts
) -> DeadLettered:
    reason = reason_of(error, execution.definition.options)
    return DeadLettered(
        message_id=facts["message_id"],
        topic=execution.definition.topic,
        data=b"" if facts["empty"] else raw,
        attributes=facts["attributes"],
        published_at=datetime.fromisoformat(facts["published_at"]),
        attempts=0 if reason == "invalid" else facts["attempt"],
        reason=reason,
        error=error,
    )
