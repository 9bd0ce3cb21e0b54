"""Totals on a real Valkey: exact, atomic, and once for each idempotency key."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from convotic_celery.context import ConvoticContext
from convotic_celery.errors import ContactNotFound, InvalidField


async def test_many_tasks_add_up_to_the_cent(ctx: ConvoticContext) -> None:
    """Concurrent increments lose nothing, and a tenth times ten is one."""
    contact = await ctx.contacts.create()

    await asyncio.gather(
        *[
            ctx.contacts.increment(contact.id, {"amount": Decimal("0.10"), "orders": 1})
            for _ in range(200)
        ]
    )

    totals = (await ctx.contacts.get(contact.id)).totals
    assert totals == {"amount": Decimal(20), "orders": Decimal(200)}


async def test_one_key_counts_once_however_often_it_races(ctx: ConvoticContext) -> None:
    """Exactly one of many calls with one key adds, and says so."""
    contact = await ctx.contacts.create()

    added = await asyncio.gather(
        *[
            ctx.contacts.increment(contact.id, {"orders": 1}, idempotency_key="o-1")
            for _ in range(50)
        ]
    )

    assert added.count(True) == 1
    assert (await ctx.contacts.get(contact.id)).totals == {"orders": 1}


async def test_keys_are_each_contacts_own(ctx: ConvoticContext) -> None:
    """One key may be used for two contacts."""
    first, second = await ctx.contacts.create(), await ctx.contacts.create()

    assert await ctx.contacts.increment(first.id, {"orders": 1}, idempotency_key="o-1")
    assert await ctx.contacts.increment(second.id, {"orders": 1}, idempotency_key="o-1")


async def test_amounts_beyond_double_precision_stay_exact(ctx: ConvoticContext) -> None:
    """Sums are integers in the store: no digit is lost where a float would lose it."""
    contact = await ctx.contacts.create()
    large, small = Decimal("4000000000000.000001"), Decimal("-0.000001")

    await ctx.contacts.increment(contact.id, {"amount": large})
    await ctx.contacts.increment(contact.id, {"amount": large})
    await ctx.contacts.increment(contact.id, {"amount": small})

    totals = (await ctx.contacts.get(contact.id)).totals
    assert totals == {"amount": Decimal("8000000000000.000001")}


async def test_sums_are_exact_on_both_sides_of_what_a_double_holds(ctx: ConvoticContext) -> None:
    """The script adds small ones by itself and leaves large ones to the store: same sums."""
    contact = await ctx.contacts.create()
    millionth = Decimal("0.000001")
    rising = [2**51 - 1, 2, 2**51, 1, 2**52 - 1, -1, 2**61 + 1, 1, 1]
    steps = [*rising, -(2**61), -(2**53) - 3, 2, -(2**51), 5]

    expected = 0
    for step in steps:
        expected += step
        await ctx.contacts.increment(contact.id, {"amount": step * millionth, "steps": 1})
        totals = (await ctx.contacts.get(contact.id)).totals
        assert totals["amount"] == expected * millionth

    assert totals["steps"] == len(steps)


async def test_totals_of_any_number_are_added(ctx: ConvoticContext) -> None:
    """None, and more than Lua unpacks."""
    contact = await ctx.contacts.create()

    assert await ctx.contacts.increment(contact.id, {})
    await ctx.contacts.increment(contact.id, {f"t{number}": number for number in range(9_000)})

    totals = (await ctx.contacts.get(contact.id)).totals
    assert totals == {f"t{number}": number for number in range(9_000)}


async def test_overflow_changes_nothing_and_frees_the_key(ctx: ConvoticContext) -> None:
    """All amounts of a refused call are taken back, so that it can be repeated."""
    contact = await ctx.contacts.create()
    huge = Decimal(4600000000000)
    await ctx.contacts.increment(contact.id, {"amount": huge})
    await ctx.contacts.increment(contact.id, {"amount": huge})

    with pytest.raises(InvalidField, match="too large"):
        await ctx.contacts.increment(
            contact.id, {"orders": 1, "refunds": -2, "amount": huge}, idempotency_key="o-1"
        )

    totals = (await ctx.contacts.get(contact.id)).totals
    assert totals["amount"] == 2 * huge
    assert (totals["orders"], totals["refunds"]) == (Decimal(0), Decimal(0))
    assert await ctx.contacts.increment(contact.id, {"orders": 1}, idempotency_key="o-1")


async def test_unknown_contact_is_refused(ctx: ConvoticContext) -> None:
    """Nothing is counted for a contact that does not exist."""
    with pytest.raises(ContactNotFound):
        await ctx.contacts.increment("nobody", {"orders": 1})
