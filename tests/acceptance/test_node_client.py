"""Google's official client of Node publishes and consumes, unchanged."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from convotic_emulator.testing import EmulatorThread
from tests.support.waiting import PATIENCE, never, wait_until

SOURCE = Path(__file__).parent / "node"
#: StreamingPulls that a subscriber opens by default.
NODE_STREAMS = 5


def run(script: str, node_folder: Path, emulator: EmulatorThread) -> Any:
    """Run a script with the client; return what it prints."""
    done = subprocess.run(
        ["node", str(SOURCE / script)],
        env=node_environment(node_folder, emulator),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_node_publishes_and_consumes(node_folder: Path, pubsub_emulator: EmulatorThread) -> None:
    """Topics, batches, a filter, ordering with a nack, StreamingPull, errors, deletion."""
    result = run("client.js", node_folder, pubsub_emulator)

    assert result["nacked"] == 1
    assert result["fromBatches"] == 99
    assert sorted(result["numbers"]) == list(range(1, 100))
    assert result["ordered"][-2:] == ["ordered 1", "ordered 2"]  # the nack repeats the second
    assert result["exists"] is False
    assert result["filter"] == 'attributes.kind = "wanted"'
    assert pubsub_emulator.server.engine.registry.topics == {}


def test_a_publisher_has_the_id_before_the_message_arrives(
    node_folder: Path, pubsub_emulator: EmulatorThread
) -> None:
    """As a rule: of 200 messages a few may be early, as two answers are read at once.

    The busier the machine, the more. All were, where the message was sent first.
    """
    assert run("ids.js", node_folder, pubsub_emulator)["early"] < 100


@pytest.mark.long
def test_an_idle_node_client_keeps_its_streams(
    node_folder: Path, pubsub_emulator: EmulatorThread
) -> None:
    """For 100 s, in which it has sent three keepalives; a message then takes no new stream."""
    with idle_client(node_folder, pubsub_emulator) as process:
        streams = open_streams(pubsub_emulator)

        never(lambda: open_streams(pubsub_emulator) != streams, for_=100)
        ended = publish_one(process)

        assert open_streams(pubsub_emulator) == streams
    assert ended == []


@pytest.mark.long
@pytest.mark.parametrize("fault", ["silent streams", "withheld keepalives"])
def test_node_replaces_streams_without_keepalive(
    node_folder: Path, pubsub_emulator: EmulatorThread, fault: str
) -> None:
    """Within 45 s, and it goes on with new ones: our keepalive is what keeps the old."""
    if fault == "withheld keepalives":
        pubsub_emulator.faults.withhold_keepalive()
    with idle_client(node_folder, pubsub_emulator) as process:
        old = open_streams(pubsub_emulator)
        if fault == "silent streams":
            # A call is open before its first request has made a stream of it.
            wait_until(lambda: pubsub_emulator.faults.silence_streams() == NODE_STREAMS)

        wait_until(
            lambda: (
                len(streams := open_streams(pubsub_emulator)) == NODE_STREAMS and not streams & old
            ),
        )
        publish_one(process)


@contextmanager
def idle_client(folder: Path, emulator: EmulatorThread) -> Iterator[subprocess.Popen[str]]:
    """Run a client that subscribes and waits for the block; its streams are open."""
    with subprocess.Popen(
        ["node", str(SOURCE / "idle.js")],
        env=node_environment(folder, emulator),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["ready"]
            wait_until(lambda: len(open_streams(emulator)) == NODE_STREAMS)
            yield process
        finally:
            process.kill()  # does nothing to one that has ended


def publish_one(process: subprocess.Popen[str]) -> list[str]:
    """Have the client publish a message and get it; return what it says of streams that ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go on\n")
    process.stdin.flush()
    ended: list[str] = json.loads(process.stdout.readline())["ended"]
    return ended


def node_environment(folder: Path, emulator: EmulatorThread) -> dict[str, str]:
    """Return where Node finds its packages and the server."""
    return os.environ | {
        "PUBSUB_EMULATOR_HOST": emulator.address,
        "PUBSUB_PROJECT_ID": "p",
        "NODE_PATH": str(folder / "node_modules"),
    }


def open_streams(emulator: EmulatorThread) -> set[tuple[object, int]]:
    """Return connection and number of each open StreamingPull.

    The connection itself: that of one that is gone may be another's id.
    """
    grpc_server: Any = emulator.server._server
    return {
        (connection, stream)
        for connection in list(grpc_server._connections)
        for stream, call in list(connection.http2.calls.items())
        if call._method.is_stream
    }
