"""Requests of many messages, which are stored as one row each until one of them is needed alone."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from google.pubsub_v1.types import pubsub

from convotic_emulator.errors import StoreError
from convotic_emulator.storage.packs import Pack
from convotic_emulator.storage.store import MEMORY, Store
from convotic_emulator.storage.wire import SEED_BYTES

SECOND_US = 1_000_000
MESSAGE = pubsub.PubsubMessage.pb()


def pack(first_seq: int, count: int, *, at_us: int = 0, data: bytes = b"data") -> Pack:
    """Return what a request of some messages has published."""
    bodies = [MESSAGE(data=data).SerializeToString()] * count
    return Pack.of(first_seq, at_us, os.urandom(SEED_BYTES), bodies)


def rows(store: Store, number: int = 1) -> int:
    """Return how many messages have a row of their own."""
    query = "SELECT count(*) FROM backlog WHERE id >> 40 = ?"
    return int(store.database.read(query, (number,)).fetchone()[0])


def seqs(store: Store, number: int = 1) -> list[int]:
    """Return what a consumer would get, read three at a time."""
    found: list[int] = []
    more = True
    while more:
        page, more = store.backlogs.read_page(number, found[-1] if found else 0, 3, 1 << 20)
        found += [message.seq for message in page]
    return found


def test_packs_and_rows_are_read_in_the_order_of_publishing() -> None:
    """Pages end anywhere; what is settled is passed over, and a settled pack is gone."""
    store = Store(MEMORY)
    store.backlogs.append(1, [(1, 0, None, b"")])
    store.backlogs.append_pack(1, pack(2, 10))
    store.backlogs.append(1, [(12, 0, None, b"")])
    store.backlogs.append_pack(1, pack(13, 10))
    store.backlogs.append_pack(2, pack(13, 10))
    assert seqs(store) == list(range(1, 23))

    store.backlogs.remove(1, [*range(2, 12), 12, 13, 15, 22], retain=False)

    assert seqs(store) == [1, 14, *range(16, 22)]
    assert store.counts.messages(1) == 8
    store.backlogs.remove(1, [1, 14, *range(13, 22)], retain=False)
    assert seqs(store) == []
    assert store.counts.messages(1) == 0
    assert not store.backlogs.packs.has(1)
    assert len(seqs(store, 2)) == 10
    store.close()


def test_settled_messages_survive_a_crash(tmp_path: Path) -> None:
    """So do the others; what was not committed is still there."""
    first = Store(tmp_path / "data")
    first.backlogs.append_pack(1, pack(1, 10))
    first.backlogs.remove(1, [3, 4], retain=False)
    first.commit()
    first.backlogs.remove(1, [5], retain=False)
    # No close(): the process is killed.
    second = Store(tmp_path / "data")

    assert seqs(second) == [1, 2, 5, 6, 7, 8, 9, 10]
    assert second.counts.messages(1) == 8
    first.database.rollback()
    first.close()
    second.close()


def test_a_message_that_is_needed_alone_gets_a_row() -> None:
    """With all others of its pack; one that is settled does not."""
    store = Store(MEMORY)
    store.backlogs.append_pack(1, pack(1, 10, at_us=7 * SECOND_US))
    store.backlogs.append_pack(1, pack(11, 10))
    store.backlogs.remove(1, [4], retain=False)

    assert store.backlogs.find(1, 4) is None
    assert rows(store) == 0
    found = store.backlogs.find(1, 5)

    assert found is not None
    assert rows(store) == 9
    found.attempts = 3
    store.backlogs.record_redelivery(1, [found])
    assert [m.attempts for m in store.backlogs.read_page(1, 0, 9, 1 << 20)[0]] == [0, 0, 0, 3] + [
        0
    ] * 5
    assert len(seqs(store)) == store.counts.messages(1) == 19
    store.close()


def test_messages_are_completed_with_id_and_time() -> None:
    """From a pack and from its rows alike; what their publisher put there has no effect."""
    store = Store(MEMORY)
    forged = MESSAGE(data=b"data", message_id="forged")
    forged.publish_time.FromMicroseconds(1)
    published = Pack.of(1, 1_700_000_000_123_456, b"s" * SEED_BYTES, [forged.SerializeToString()])
    store.backlogs.append_pack(1, published)

    packed = store.backlogs.read_page(1, 0, 10, 1 << 20)[0]
    body = store.backlogs.read_bodies(1, [1])[1]

    assert rows(store) == 1
    assert packed[0].body == body
    message = MESSAGE.FromString(body)
    assert message.data == b"data"
    assert message.message_id.startswith("1")
    assert len(message.message_id) == 13
    assert message.publish_time.ToMicroseconds() == 1_700_000_000_123_456
    store.close()


def test_what_is_past_its_retention_goes() -> None:
    """Pack by pack; one with a leased message becomes rows first, and keeps that message."""
    store = Store(MEMORY)
    store.backlogs.append_pack(1, pack(1, 10, at_us=100))
    store.backlogs.append(1, [(11, 200, None, b"")])
    store.backlogs.append_pack(1, pack(12, 10, at_us=300))
    store.backlogs.append_pack(1, pack(22, 10, at_us=400))
    assert store.backlogs.oldest_us(1) == 100
    assert store.backlogs.newest_us(1) == 400
    assert [store.backlogs.last_before(1, time) for time in (1, 101, 250, 301, 999)] == [
        *(-1, 10, 11, 21, 31)
    ]

    while store.backlogs.trim(1, 350, leased=[15]):
        pass

    assert seqs(store) == [15, *range(22, 32)]
    assert store.counts.messages(1) == 11
    store.close()


@pytest.mark.parametrize("is_open", [False, True])
def test_a_changed_byte_is_noticed(tmp_path: Path, *, is_open: bool) -> None:
    """When the file is opened, or when the pack is read."""
    store = Store(tmp_path / "data")
    store.backlogs.append_pack(1, pack(1, 10))
    changed = pack(1, 10, data=b"hero").body
    store.database.write("UPDATE pack SET body = ?", (changed,))
    store.commit()

    if is_open:
        with pytest.raises(sqlite3.DatabaseError, match="damaged"):
            seqs(store)
    store.close()
    with pytest.raises(StoreError, match="messages in pack"):
        Store(tmp_path / "data")
