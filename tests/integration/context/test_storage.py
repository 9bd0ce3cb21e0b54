"""The storage on a real Valkey: kinds, time to live, limits, pages, races."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from convotic_celery.context import (
    AsyncStorage,
    ConvoticContext,
    Delivery,
    Services,
    StorageItem,
    Store,
    SyncConvoticContext,
)
from convotic_celery.context.database import AsyncDatabase
from convotic_celery.context.keys import Keys
from convotic_celery.context.scripts import Script
from convotic_celery.errors import InvalidField, StorageValueTooLarge
from tests.support.waiting import wait_until_async


class Order(BaseModel):
    id: int
    total: Decimal


@pytest.fixture
def storage(store: Store, key_prefix: str) -> AsyncStorage:
    return AsyncStorage(AsyncDatabase(store), Keys(key_prefix), "crm", max_value_bytes=1_000)


@pytest.mark.parametrize("value", [{"a": [1, 2.5, "ü"], "b": None}, "text", 0, False, [], 2**80])
async def test_json_comes_back(storage: AsyncStorage, value: Any) -> None:
    """As it was set, falsy values included."""
    await storage.set("k", value)

    assert await storage.get("k") == value


async def test_absent_key_is_none(storage: AsyncStorage) -> None:
    """For both kinds."""
    assert await storage.get("k") is None
    assert await storage.get("k", Order) is None
    assert await storage.get_bytes("k") is None


async def test_model_comes_back_as_its_type(storage: AsyncStorage) -> None:
    """Where a type is named."""
    order = Order(id=1, total=Decimal("29.33"))

    await storage.set("order:1", order)
    await storage.set("orders", [order])

    assert await storage.get("order:1", Order) == order
    assert await storage.get("orders", list[Order]) == [order]
    assert await storage.get("order:1") == {"id": 1, "total": "29.33"}
    limited: Any = Annotated[list[Order], Field(max_length=1)]
    assert await storage.get("orders", limited) == [order]
    with pytest.raises(InvalidField, match="'order:1' is not a valid int"):
        await storage.get("order:1", int)


async def test_bytes_come_back(storage: AsyncStorage) -> None:
    """Also those that are no text; each kind says how it is read."""
    await storage.set("file", bytes(range(256)))
    await storage.set("json", 1)

    assert await storage.get_bytes("file") == bytes(range(256))
    with pytest.raises(InvalidField, match=r"'file' holds bytes: read it with get_bytes"):
        await storage.get("file")
    with pytest.raises(InvalidField, match=r"'file' holds bytes"):
        await storage.get("file", Order)
    with pytest.raises(InvalidField, match=r"'json' holds JSON: read it with get\(\)"):
        await storage.get_bytes("json")


async def test_too_large_value_is_refused(storage: AsyncStorage) -> None:
    """Nothing is kept; bytes count as they are, not as they are written."""
    await storage.set("k", b"x" * 1_000)

    with pytest.raises(StorageValueTooLarge, match=r"'k' has 1,001 bytes, the storage allows 1"):
        await storage.set("k", b"y" * 1_001)
    with pytest.raises(StorageValueTooLarge):
        await storage.set("k", "y" * 999)

    assert await storage.get_bytes("k") == b"x" * 1_000


@pytest.mark.parametrize("value", [None, object(), float("nan"), {"at": b"\xff"}])
async def test_what_can_not_be_kept_is_refused(storage: AsyncStorage, value: object) -> None:
    """The text names the key."""
    with pytest.raises(InvalidField, match="'k'"):
        await storage.set("k", value)


@pytest.mark.parametrize("key", ["", "x" * 501, "ü" * 251, "\ud800", 7])
async def test_bad_key_is_refused(storage: AsyncStorage, key: Any) -> None:
    """Too long as UTF-8, empty, or no text."""
    with pytest.raises(InvalidField, match="1 to 500 UTF-8 bytes"):
        await storage.set(key, 1)
    with pytest.raises(InvalidField, match="1 to 500 UTF-8 bytes"):
        await storage.get(key)


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), True, "1"])
async def test_bad_ttl_is_refused(storage: AsyncStorage, ttl: Any) -> None:
    """Zero would delete what was just set."""
    with pytest.raises(InvalidField, match="ttl must be"):
        await storage.set("k", 1, ttl=ttl)


async def test_value_ends_with_its_time_to_live(storage: AsyncStorage) -> None:
    """It is gone from the listing too; a later write without one keeps."""
    await storage.set("short", 1, ttl=0.02)
    await storage.set("kept", 1, ttl=timedelta(milliseconds=20))
    await storage.set("kept", 2)

    async def is_gone() -> bool:
        return await storage.get("short") is None

    gone: bool = await wait_until_async(is_gone)
    assert gone
    assert [item.key for item in (await storage.list()).items] == ["kept"]
    assert await storage.get("kept") == 2


async def test_expired_keys_leave_the_indexes(
    storage: AsyncStorage, store: Store, key_prefix: str
) -> None:
    """The next write takes them out: nothing grows by keys that ended."""
    for number in range(5):
        await storage.set(f"short:{number}", 1, ttl=0.001)
    client, keys = store.async_client(), Keys(key_prefix)

    async def is_gone() -> bool:
        return not await client.exists(*[keys.storage_item("crm", f"short:{n}") for n in range(5)])

    gone: bool = await wait_until_async(is_gone)
    assert gone
    await storage.set("other", 1)

    assert await client.zrange(keys.storage_keys("crm"), 0, -1) == ["other"]
    assert await client.zcard(keys.storage_expiries("crm")) == 0


async def test_listing_has_values_and_times(storage: AsyncStorage) -> None:
    """Each item says when it ends."""
    begun = datetime.now(UTC)
    await storage.set("a", {"n": 1})
    await storage.set("b", b"\x00", ttl=60)

    first, second = (await storage.list()).items

    ended, margin = datetime.now(UTC), timedelta(seconds=1)  # the store has a clock of its own
    assert first == StorageItem("a", {"n": 1}, None, first.updated_at)
    assert second.value == b"\x00"
    assert second.expires_at is not None
    minute = timedelta(seconds=60)
    assert begun - margin < second.expires_at - minute < ended + margin
    assert begun - margin < first.updated_at < ended + margin


async def test_prefix_is_listed_page_by_page(storage: AsyncStorage) -> None:
    """All of the prefix, nothing else, in order of keys; also beyond ASCII."""
    keys = sorted([f"order:{n:02}" for n in range(7)] + ["order:ü", "order:😀"])
    for key in [*keys, "order", "orders", "order;", "a"]:
        await storage.set(key, key)

    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await storage.list("order:", limit=2, cursor=cursor)
        assert len(page.items) <= 2
        found += [item.key for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert found == keys
    with pytest.raises(InvalidField, match="another prefix"):
        await storage.list("order:", cursor="x")
    with pytest.raises(InvalidField, match="limit"):
        await storage.list(limit=0)


async def test_page_of_large_values_ends_early(store: Store, key_prefix: str) -> None:
    """Values of three megabytes come two at a time."""
    storage = AsyncStorage(AsyncDatabase(store), Keys(key_prefix), "crm", max_value_bytes=3_000_000)
    for number in range(3):
        await storage.set(f"k{number}", "x" * 2_999_998)

    page = await storage.list()
    rest = await storage.list(cursor=page.next_cursor)

    assert [item.key for item in page.items] == ["k0", "k1"]
    assert [item.key for item in rest.items] == ["k2"]
    assert rest.next_cursor is None


async def test_set_if_absent_succeeds_once(storage: AsyncStorage) -> None:
    """Of twenty at a time."""
    won = await asyncio.gather(*(storage.set_if_absent("lock", n, ttl=60) for n in range(20)))

    assert won.count(True) == 1
    assert await storage.get("lock") == won.index(True)
    assert not await storage.set_if_absent("lock", 99)


async def test_compare_and_set_loses_no_change(storage: AsyncStorage) -> None:
    """Twenty writers add to a list, each trying until it has."""

    async def add(number: int) -> None:
        while True:
            old = await storage.get("seen", list[int])
            if await storage.compare_and_set("seen", old, [*(old or []), number]):
                return

    await asyncio.gather(*map(add, range(20)))

    assert sorted(await storage.get("seen", list[int]) or []) == list(range(20))


async def test_comparison_is_of_values(storage: AsyncStorage) -> None:
    """The order of names does not count; kinds do."""
    await storage.set("k", {"a": 1, "b": 2})

    assert not await storage.compare_and_set("k", None, 0)
    assert not await storage.compare_and_set("k", b'{"a":1,"b":2}', 0)
    assert not await storage.compare_and_set("other", {"a": 1}, 0)
    assert await storage.compare_and_set("k", {"b": 2, "a": 1}, b"done")
    assert await storage.compare_and_set("k", b"done", 1)


async def test_delete_says_whether_it_was_there(storage: AsyncStorage) -> None:
    """With an expected value, only that is deleted: so is a lock given back."""
    await storage.set("k", "mine", ttl=60)

    assert not await storage.delete("k", expected="theirs")
    assert await storage.delete("k", expected="mine")
    assert not await storage.delete("k")
    assert (await storage.list()).items == ()


async def test_repeated_call_answers_as_the_first(store: Store, key_prefix: str) -> None:
    """The client repeats a call whose answer was lost: the write is still this caller's."""

    class RepeatingDatabase(AsyncDatabase):
        async def run(self, script: Script, keys: Sequence[str], *arguments: str) -> Any:
            await super().run(script, keys, *arguments)
            return await super().run(script, keys, *arguments)

    storage = AsyncStorage(RepeatingDatabase(store), Keys(key_prefix), "crm")

    assert await storage.set_if_absent("k", 1)
    assert await storage.compare_and_set("k", 1, 2)
    assert not await storage.set_if_absent("k", 1)


async def test_modules_do_not_see_each_other(services: Services) -> None:
    """The context's storage is that of the handler's module."""

    def context(module: str) -> ConvoticContext:
        return services.async_context(
            Delivery(handler="t.m", topic="t", message_id="1", module=module)
        )

    await context("crm").storage.set("k", "crm")
    await context("shop").storage.set("k", "shop")

    assert await context("crm").storage.get("k") == "crm"
    assert [item.value for item in (await context("shop").storage.list()).items] == ["shop"]


def test_plain_handlers_have_the_same(sync_ctx: SyncConvoticContext) -> None:
    """Without await, on the same keys."""
    storage = sync_ctx.storage

    assert storage.set_if_absent("k", Order(id=1, total=Decimal(2)))
    assert storage.get("k", Order) == Order(id=1, total=Decimal(2))
    assert storage.compare_and_set("k", Order(id=1, total=Decimal(2)), b"b")
    assert storage.get_bytes("k") == b"b"
    assert [item.value for item in storage.list("k").items] == [b"b"]
    assert storage.delete("k")
