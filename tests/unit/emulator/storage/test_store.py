"""The data file: what is refused, and what survives."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from convotic_emulator.errors import StoreError
from convotic_emulator.server import EmulatorServer
from convotic_emulator.storage.datafile import SCHEMA_VERSION
from convotic_emulator.storage.message import Message
from convotic_emulator.storage.store import MEMORY, Store
from convotic_emulator.storage.wire import SEED_BYTES, message_ids
from tests.unit.emulator.client import Client


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_a_file_of_another_version_is_refused(tmp_path: Path, version: int) -> None:
    """With file and both versions in the text, and what to do; nothing is written."""
    path = tmp_path / "data"
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(StoreError, match=f"schema {version}, this one reads {SCHEMA_VERSION}") as e:
        Store(path)

    assert f"{path} was written by" in str(e.value)
    assert "another data folder, or delete data* with" in str(e.value)

    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", [b"no database at all" * 100, None])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: bytes | None) -> None:
    """Overwritten from the start, or in the middle of a table; it stays as it is."""
    path = tmp_path / "data"
    store = Store(path)
    store.backlogs.append(1, [(seq, 0, None, b"x" * 500) for seq in range(1, 500)])
    store.close()
    content = bytearray(path.read_bytes())
    content[: len(damage or b"")] = damage or b""
    if damage is None:
        content[20_000:60_000] = b"\xff" * 40_000
    path.write_bytes(content)

    with pytest.raises(StoreError, match=r"damaged|can't be read"):
        Store(path)

    assert path.read_bytes() == bytes(content)


@pytest.mark.parametrize("acknowledged", [False, True])
def test_a_changed_byte_of_a_message_is_noticed(tmp_path: Path, *, acknowledged: bool) -> None:
    """SQLite has no checksums, we have."""
    path = tmp_path / "data"
    store = Store(path)
    store.backlogs.append(1, [(1, 0, None, b"x" * 500 + b"here" + b"x" * 500)])
    if acknowledged:
        store.backlogs.remove(1, [1], retain=True)
    store.close()
    damaged = path.read_bytes().replace(b"here", b"hero")
    path.write_bytes(damaged)

    with pytest.raises(StoreError, match="message in row"):
        Store(path)

    assert path.read_bytes() == damaged


def test_a_changed_byte_is_noticed_when_it_is_read() -> None:
    """Large files are not read when they are opened."""
    store = Store(MEMORY)
    store.backlogs.append(1, [(1, 0, None, b"good")])
    store.database.write("UPDATE backlog SET body = ?", (b"food",))

    with pytest.raises(sqlite3.DatabaseError, match="damaged"):
        store.backlogs.read_page(1, 0, 10, 1000)
    with pytest.raises(sqlite3.DatabaseError, match="damaged"):
        store.backlogs.read_bodies(1, [1])
    store.close()


def leave_log(tmp_path: Path) -> Path:
    """Return the data file of a server that was killed: its log holds what was confirmed."""
    path = tmp_path / "data"
    store = Store(path)
    store.backlogs.append(1, [(seq, 0, None, b"x" * 500) for seq in range(1, 100)])
    store.commit()
    killed = tmp_path / "killed"
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{path}{suffix}", f"{killed}{suffix}")
    store.close()
    return killed


@pytest.mark.parametrize("size", [0, 1, 50, 100, 4096])
def test_a_cut_file_is_refused(tmp_path: Path, size: int) -> None:
    """File and log stay as they are: an empty file is not taken for a new one."""
    path = leave_log(tmp_path)
    log = Path(f"{path}-wal")
    os.truncate(path, size)
    before = (path.read_bytes(), log.read_bytes())

    with pytest.raises(StoreError, match="it was not changed"):
        Store(path)

    assert (path.read_bytes(), log.read_bytes()) == before


def test_a_file_that_lacks_a_byte_is_refused(tmp_path: Path) -> None:
    """SQLite alone would read zeros."""
    path = tmp_path / "data"
    Store(path).close()
    os.truncate(path, path.stat().st_size - 1)

    with pytest.raises(StoreError, match="instead of"):
        Store(path)


def test_a_log_without_its_file_is_refused(tmp_path: Path) -> None:
    """A new file would be mixed with it, or lose it."""
    path = leave_log(tmp_path)
    path.unlink()

    with pytest.raises(StoreError, match="missing"):
        Store(path)

    assert Path(f"{path}-wal").exists()


def test_a_file_that_was_begun_is_begun_again(tmp_path: Path) -> None:
    """The first server of a folder was killed before its file was complete."""
    (tmp_path / "data.new").write_bytes(b"half a page")

    Store(tmp_path / "data").close()

    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE resource SET body = x'ffffff'",
        "INSERT INTO resource VALUES ('seek/7', 'seek', 7, x'ff', 0, 0)",
        "INSERT INTO lease VALUES (9, 1, 9000000000000000, x'ff')",
        "DELETE FROM meta",
    ],
)
async def test_nonsense_in_a_table_is_refused(tmp_path: Path, damage: str) -> None:
    """As other damage is; the file stays as it is."""
    path = tmp_path / "data"
    async with EmulatorServer(path) as server, Client(server) as client:
        await client.create()
    with sqlite3.connect(path) as connection:
        connection.execute(damage)
    connection.close()
    before = path.read_bytes()

    with pytest.raises(StoreError, match="is damaged"):
        await EmulatorServer(path).start()

    assert path.read_bytes() == before


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    """Somebody else's SQLite database is not ours to write to."""
    path = tmp_path / "data"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()

    with pytest.raises(StoreError, match="not a data file"):
        Store(path)


def test_message_numbers_are_never_used_twice(tmp_path: Path) -> None:
    """Not even when the server dies with everything acknowledged."""
    path = tmp_path / "data"
    first = Store(path)
    used = first.numbers.take_seqs(10)
    first.commit()
    # No close(): the process is killed.
    second = Store(path)

    assert second.numbers.take_seqs(1) >= used + 10
    first.close()
    second.close()


def test_message_ids_cannot_be_guessed() -> None:
    """Handlers deduplicate by them: each is unique, and known numbers and ids tell no other."""
    [ids, others] = [message_ids(os.urandom(SEED_BYTES), 1, 1000) for _ in range(2)]

    assert len({*ids, *others}) == 2000
    assert all(identifier.isdecimal() for identifier in ids)
    assert [int(identifier) // 10**12 for identifier in ids] == list(range(1, 1001))
    differences = {int(b) - int(a) for a, b in itertools.pairwise(ids)}
    assert len(differences) == 999


def test_removing_a_run_keeps_its_neighbours() -> None:
    """Rows are removed in ranges; what is between two ranges stays."""
    store = Store(MEMORY)
    store.backlogs.append(1, [(seq, 0, None, b"x") for seq in range(1, 11)])
    store.backlogs.append(2, [(5, 0, None, b"other")])

    store.backlogs.remove(1, [9, 2, 3, 5], retain=False)

    assert store.backlogs.existing(1, range(1, 11)) == {1, 4, 6, 7, 8, 10}
    assert store.counts.messages(2) == 1
    store.close()


def test_a_page_ends_at_its_bytes() -> None:
    """Large messages come a few at a time; nothing is skipped."""
    store = Store(MEMORY)
    store.backlogs.append(1, [(seq, 0, None, b"x" * 1000) for seq in range(1, 6)])

    page, more = store.backlogs.read_page(1, 0, 100, 2500)

    assert ([m.seq for m in page], more) == ([1, 2, 3], True)
    rest, more = store.backlogs.read_page(1, 3, 100, 2500)
    assert ([m.seq for m in rest], more) == ([4, 5], False)
    store.close()


def test_messages_are_found_by_time() -> None:
    """Trimming takes what was published before, leased messages aside."""
    store = Store(MEMORY)
    store.backlogs.append(1, [(seq, seq * 10, None, b"x") for seq in range(1, 11)])

    while store.backlogs.trim(1, 65, leased=[3]):
        pass

    assert store.backlogs.existing(1, range(1, 11)) == {3, 7, 8, 9, 10}
    store.close()


def test_counts_survive_a_crash(tmp_path: Path) -> None:
    """They are committed with the rows; what was not committed is not counted."""
    path = tmp_path / "data"
    first = Store(path)
    first.backlogs.append(1, [(seq, 0, None, b"x") for seq in range(1, 11)])
    first.backlogs.append(2, [(11, 0, None, b"x")])
    first.backlogs.remove(1, [2, 3, 99], retain=True)
    first.counts.add_dead_letters(1, 3)
    first.commit()
    # No close(): the process is killed.
    second = Store(path)

    assert (second.counts.messages(1), second.counts.messages(2), second.counts.messages(3)) == (
        8,
        1,
        0,
    )
    assert second.counts.dead_letters(1) == 3
    first.close()
    second.close()


def test_a_file_shrinks_when_most_of_it_is_free(tmp_path: Path) -> None:
    """In steps; what is left is still there."""
    path = tmp_path / "data"
    store = Store(path)
    store.backlogs.append(1, [(seq, 0, None, b"x" * 1_000_000) for seq in range(1, 41)])
    store.backlogs.append(2, [(41, 0, None, b"kept")])
    store.commit()
    assert not store.database.shrink()
    store.backlogs.remove(1, range(1, 41), retain=False)
    store.commit()

    steps = 0
    while store.database.shrink():
        steps += 1

    assert steps > 1
    assert path.stat().st_size < 20_000_000
    assert store.backlogs.existing(2, [41]) == {41}
    store.close()


def test_what_is_deferred_is_written_with_the_commit(tmp_path: Path) -> None:
    """Before that nothing is executed, and nothing is missing after it."""
    store = Store(tmp_path / "data")
    executed: list[str] = []
    store.database._connection.set_trace_callback(executed.append)
    store.backlogs.append(1, [(1, 0, None, b"one")])
    store.backlogs.append(1, [(2, 0, None, b"two")])
    store.leases.record(1, 10, [Message(1, 0, None, 3, None)])

    assert not executed
    assert store.database.has_uncommitted
    store.commit()

    assert [each.split()[0] for each in executed].count("INSERT") == 4  # and the count
    assert not store.database.has_uncommitted
    store.close()
    again = Store(tmp_path / "data")
    assert again.backlogs.read_bodies(1, [1, 2]) == {1: b"one", 2: b"two"}
    assert [m.seq for m in again.leases.read()[1][10]] == [1]
    again.close()


def test_nobody_can_tell_that_something_was_deferred() -> None:
    """What is read or written next sees it, in the order of the calls; a rollback forgets it."""
    store = Store(MEMORY)
    store.backlogs.append(1, [(1, 0, None, b"one"), (2, 0, None, b"two")])
    store.backlogs.remove(1, [1], retain=False)
    store.backlogs.append(1, [(3, 0, None, b"three")])

    assert store.backlogs.read_bodies(1, [1, 2, 3]) == {2: b"two", 3: b"three"}
    store.commit()
    store.backlogs.append(1, [(4, 0, None, b"four")])
    store.rollback()
    assert store.backlogs.read_bodies(1, [2, 3, 4]) == {2: b"two", 3: b"three"}
    assert store.counts.messages(1) == 2
    store.close()


def test_numbers_that_are_not_reserved_in_the_file_are_not_safe(tmp_path: Path) -> None:
    """A message with one may not be delivered before the commit; one with another may."""
    store = Store(tmp_path / "data")

    def take() -> list[Message]:
        return [Message(store.numbers.take_seqs(1), 0, None, 1, b"x")]

    first = take()
    assert not store.numbers.are_being_published(first)
    store.commit()
    assert not store.numbers.are_being_published(first)
    second = take()
    assert store.numbers.are_being_published(second)
    store.rollback()
    third = take()
    assert third[0].seq > second[0].seq
    store.database._connection.close()  # as a kill would
    again = Store(tmp_path / "data")
    assert again.numbers.take_seqs(1) > third[0].seq
    again.close()


def test_numbers_of_a_rolled_back_reservation_are_reserved_again(tmp_path: Path) -> None:
    """The file does not know of them: the next commit must tell it."""
    store = Store(tmp_path / "data")
    store.numbers.take_seqs(1)
    store.rollback()
    store.commit()
    taken = Message(store.numbers.take_seqs(1), 0, None, 1, b"x")
    assert not store.numbers.are_being_published([taken])
    store.commit()
    store.database._connection.close()  # as a kill would
    again = Store(tmp_path / "data")
    assert again.numbers.take_seqs(1) > taken.seq
    again.close()
