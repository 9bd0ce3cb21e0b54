"""The handlers that run under chaos. Each run is a line in the ledger, written before and after."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

from convotic_celery import (
    ConstantBackoff,
    ConvoticContext,
    ConvoticModule,
    SyncConvoticContext,
    WorkerMessage,
)

__all__ = ["CONTACT", "module"]

#: Whose total counts the keyed messages, once each.
CONTACT = "chaos"

module = ConvoticModule(name="chaos", version="1.0.0")
_LEDGER = Path(os.environ.get("CONVOTIC_TEST_LEDGER", os.devnull))
_OPTIONS: dict[str, Any] = {"ack_deadline": 10, "max_retries": 5}


def write(what: str, message: WorkerMessage[Any]) -> None:
    """Append a line; the kernel keeps it whole, whatever becomes of this process."""
    line = f"{what} {message.data['id']} {message.attempt}\n".encode()
    descriptor = os.open(_LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


@module.worker("chaos.keyed", deduplicate="data.id", concurrency=8, **_OPTIONS)
async def count_once(message: WorkerMessage, ctx: ConvoticContext) -> None:
    """Have an effect that counts once, with a key."""
    write("start", message)
    contact = await ctx.contacts.find_by_external_id(CONTACT)
    if contact is not None:  # FLUSHALL takes it along
        key = str(message.data["id"])
        await ctx.contacts.increment(contact.id, {"messages": 1}, idempotency_key=key)
    await asyncio.sleep(random.uniform(0, 0.05))
    write("end", message)


@module.worker("chaos.plain", concurrency=4, **_OPTIONS)
def run_plainly(message: WorkerMessage, ctx: SyncConvoticContext) -> None:  # noqa: ARG001 - it needs none
    """Run in a thread, without a key."""
    write("start", message)
    write("end", message)


@module.worker("chaos.failing", concurrency=4, backoff=ConstantBackoff(delay=1.0), **_OPTIONS)
async def fail_at_first(message: WorkerMessage, ctx: ConvoticContext) -> None:  # noqa: ARG001 - it needs none
    """Fail as often as the message says: some are dead-lettered, with runs behind them."""
    write("start", message)
    if message.attempt <= message.data["failures"]:
        raise ConnectionError("what it calls does not answer")
    write("end", message)
