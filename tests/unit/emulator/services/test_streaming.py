"""What leaves for a stream before its commit, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convotic_emulator.engine.clock import ManualClock
from convotic_emulator.grpc.connection import Connection
from convotic_emulator.server import EmulatorServer
from tests.unit.emulator.client import Client, bodies

WATCHED = b"watched message"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[EmulatorServer], list[str]]:
    """Have a server note when it commits, and when the watched message leaves."""

    def begin(server: EmulatorServer) -> list[str]:
        events: list[str] = []
        store = server.engine.store
        write, commit = Connection.write, store.commit

        def note_write(connection: Connection, data: bytes) -> None:
            if WATCHED in data:
                events.append("sent")
            write(connection, data)

        def note_commit() -> None:
            if store.database.has_uncommitted:
                events.append("committed")
            commit()

        monkeypatch.setattr(Connection, "write", note_write)
        monkeypatch.setattr(store, "commit", note_commit)
        return events

    return begin


async def receive(stream: Any) -> list[bytes]:
    """Return the data of the next response that has messages."""
    while not (received := (await stream.read()).received_messages):
        pass
    return bodies(received)


async def test_what_is_being_published_does_not_wait_for_its_commit(
    tmp_path: Path, watch: Callable[[EmulatorServer], list[str]]
) -> None:
    """As from the service; its publisher has the confirmation after the commit."""
    async with (
        EmulatorServer(tmp_path / "data") as server,
        Client(server) as client,
        Client(server) as publisher,
    ):
        await client.create()
        stream = await client.stream()
        await publisher.publish(b"before")
        assert await receive(stream) == [b"before"]
        events = watch(server)

        await publisher.publish(WATCHED)

        assert events == ["sent", "committed"]
        assert await receive(stream) == [WATCHED]


@pytest.mark.parametrize("exactly_once", [False, True])
async def test_a_publisher_has_the_id_before_its_connection_gets_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, exactly_once: bool
) -> None:
    """Clients share a connection for publishing and subscribing; tests of theirs compare ids."""
    async with EmulatorServer(tmp_path / "data") as server, Client(server) as client:
        await client.create(enable_exactly_once_delivery=exactly_once)
        stream = await client.stream()
        await client.publish(b"before")
        assert await receive(stream) == [b"before"]
        sent: list[bytes] = []
        write = Connection.write

        def note_write(connection: Connection, data: bytes) -> None:
            sent.append(data)
            write(connection, data)

        monkeypatch.setattr(Connection, "write", note_write)

        for _ in range(5):
            sent.clear()
            [message_id] = await client.publish(WATCHED)
            assert await receive(stream) == [WATCHED]

            [answered] = [n for n, data in enumerate(sent) if message_id.encode() in data][:1]
            [delivered] = [n for n, data in enumerate(sent) if WATCHED in data]
            assert answered < delivered


async def test_the_first_message_of_a_server_waits(
    tmp_path: Path, watch: Callable[[EmulatorServer], list[str]]
) -> None:
    """Its number is not reserved in the file yet: after a crash another message would have it."""
    async with EmulatorServer(tmp_path / "data") as server, Client(server) as client:
        await client.create()
        stream = await client.stream()
        await stream.wait_for_connection()
        events = watch(server)

        await client.publish(WATCHED)

        assert await receive(stream) == [WATCHED]
        assert events == ["committed", "sent"]


@pytest.mark.parametrize("exactly_once", [False, True])
async def test_a_backlog_waits_for_its_leases(
    tmp_path: Path, watch: Callable[[EmulatorServer], list[str]], *, exactly_once: bool
) -> None:
    """A lease that can't be written is none."""
    async with EmulatorServer(tmp_path / "data") as server, Client(server) as client:
        await client.create(enable_exactly_once_delivery=exactly_once)
        await client.publish(WATCHED)
        events = watch(server)

        stream = await client.stream()

        assert await receive(stream) == [WATCHED]
        assert events == ["committed", "sent"]


async def test_a_redelivery_waits_for_its_lease(
    tmp_path: Path, clock: ManualClock, watch: Callable[[EmulatorServer], list[str]]
) -> None:
    """The attempt that is over is in the file, and the new lease."""
    async with EmulatorServer(tmp_path / "data", clock=clock) as server, Client(server) as client:
        await client.create()
        stream = await client.stream()
        await client.publish(WATCHED)
        assert await receive(stream) == [WATCHED]
        events = watch(server)

        clock.advance(11)

        assert await receive(stream) == [WATCHED]
        assert events == ["committed", "sent"]


async def test_exactly_once_waits_for_the_commit(
    tmp_path: Path, watch: Callable[[EmulatorServer], list[str]]
) -> None:
    """It promises that nothing is redelivered while it is leased."""
    async with EmulatorServer(tmp_path / "data") as server, Client(server) as client:
        await client.create(enable_exactly_once_delivery=True)
        stream = await client.stream()
        await client.publish(b"before")
        assert await receive(stream) == [b"before"]
        events = watch(server)

        await client.publish(WATCHED)

        assert await receive(stream) == [WATCHED]
        assert events == ["committed", "sent"]
