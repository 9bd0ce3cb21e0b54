"""The module under measurement: its handler records when each message arrived."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from convotic_celery import (
    BatchOptions,
    ConvoticContext,
    ConvoticModule,
    SyncConvoticContext,
    WorkerMessage,
)
from convotic_order_processor.handler import AMOUNT, ORDERS, UNITS, process_order
from convotic_order_processor.models import Order  # noqa: TC001  # read when the handler registers

TOPIC = "bench.noop"
SUBSCRIPTION = f"{TOPIC}.bench"

module = ConvoticModule(name="bench", version="1")
#: Sent and arrived, monotonic nanoseconds; one line of text per message, written in blocks.
_record: list[str] = []
_path = Path(os.environ.get("CONVOTIC_TEST_BENCH_RECORD", os.devnull))
_BLOCK = int(os.environ.get("CONVOTIC_TEST_BENCH_BLOCK", "500"))


#: How long a handler waits, and how many wait at once.
_WAIT = float(os.environ.get("CONVOTIC_TEST_BENCH_WAIT", "0"))
_CONCURRENCY = int(os.environ.get("CONVOTIC_TEST_BENCH_CONCURRENCY", "100"))


#: What else is measured: keys, by a field of the payload that each message has for itself.
_OPTIONS: dict[str, Any] = {"concurrency": _CONCURRENCY}
if os.environ.get("CONVOTIC_TEST_BENCH_DEDUPLICATE"):
    _OPTIONS["deduplicate"] = "data.sent"
if os.environ.get("CONVOTIC_TEST_BENCH_CONCURRENCY_KEY"):
    _OPTIONS["concurrency_key"] = "data.sent"


class Payload(BaseModel):
    """The measured messages' data."""

    sent: int
    padding: str


async def note_arrival(message: WorkerMessage, ctx: ConvoticContext) -> None:  # noqa: ARG001 - a no-op
    if _WAIT:
        await asyncio.sleep(_WAIT)
    note(message.data["sent"])


async def note_typed(message: WorkerMessage[Payload], ctx: ConvoticContext) -> None:  # noqa: ARG001 - a no-op
    note(message.data.sent)


async def note_order(message: WorkerMessage[Order], ctx: ConvoticContext) -> None:
    await process_order(message, ctx)
    note(0)


def note_order_plain(message: WorkerMessage[Order], ctx: SyncConvoticContext) -> None:
    """The sample's handler, in a thread."""
    order, key = message.data, f"order:{message.data.id}"
    ctx.logger.info("Processing order", order_id=order.id)
    contact = ctx.contacts.find_or_create(
        external_id=order.customer_id,
        first_name=order.customer_name,
        email=order.customer_email or None,
        tags=["has-order"],
    )
    if "has-order" not in contact.tags:
        ctx.contacts.add_tag(contact.id, "has-order")
    amounts: dict[str, int | Decimal] = {ORDERS: 1, UNITS: order.quantity, AMOUNT: order.total}
    ctx.contacts.increment(contact.id, amounts, idempotency_key=key)
    conversation = ctx.conversations.find_by_contact_id(contact.id)
    if conversation:
        text = f"Thank you for your order #{order.id}! We'll keep you updated."
        ctx.messages.send(conversation.id, text=text, idempotency_key=key)
    note(0)


def note_stored(message: WorkerMessage, ctx: SyncConvoticContext) -> None:
    """Write a row to a database, as an ordinary handler does: a transaction a message."""
    _store([message], ctx)


def note_stored_batch(messages: list[WorkerMessage], ctx: SyncConvoticContext) -> None:
    """The same for many: a transaction a batch."""
    _store(messages, ctx)


def _store(messages: list[WorkerMessage], _ctx: SyncConvoticContext) -> None:
    rows = [(message.id, message.data["padding"]) for message in messages]
    with _lock:
        if not _databases:
            _databases.append(sqlite3.connect(_path.with_suffix(".db"), check_same_thread=False))
            _databases[0].execute("CREATE TABLE IF NOT EXISTS stored (id TEXT, padding TEXT)")
        with _databases[0] as database:
            database.executemany("INSERT INTO stored VALUES (?, ?)", rows)
        for message in messages:
            note(message.data["sent"])


_lock = threading.Lock()
_databases: list[sqlite3.Connection] = []
_HANDLERS: dict[str, Any] = {
    "": note_arrival,
    "typed": note_typed,
    "order": note_order,
    "order-plain": note_order_plain,
    "stored": note_stored,
    "stored-batch": note_stored_batch,
}
_handler = os.environ.get("CONVOTIC_TEST_BENCH_HANDLER", "")
if _handler == "stored-batch":
    _OPTIONS |= {"batch": BatchOptions(max_size=100, max_wait=0.2), "concurrency": 2}
module.worker(TOPIC, **_OPTIONS)(_HANDLERS[_handler])


def note(sent: int) -> None:
    """Record that a message has arrived."""
    _record.append(f"{sent} {time.monotonic_ns()}\n")
    if len(_record) >= _BLOCK:
        with _path.open("a") as file:
            file.write("".join(_record))
        _record.clear()


async def do_nothing(message: WorkerMessage, ctx: ConvoticContext) -> None:
    """Do nothing: one of many handlers beside the measured one."""


for _number in range(int(os.environ.get("CONVOTIC_TEST_BENCH_OTHERS", "0"))):
    module.worker(f"bench.other-{_number}")(do_nothing)

if _toggled := os.environ.get("CONVOTIC_TEST_BENCH_TOGGLE"):
    from benchmarks.observing import toggle  # it imports what is measured here

    toggle(Path(_toggled), os.environ["CONVOTIC_TEST_BENCH_TOGGLED"])
