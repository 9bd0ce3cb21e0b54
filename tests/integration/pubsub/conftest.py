"""Brokers for the transport's tests: our emulator and Google's, in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kombu import Connection

from convotic_pubsub.queue import QueueSpec
from tests.support.pubsub import Harness, unique


@pytest.fixture(params=["ours", pytest.param("google", marks=pytest.mark.google_emulator)])
def broker(request: pytest.FixtureRequest) -> str:
    """The address of each of the two emulators in turn."""
    name = "our_emulator" if request.param == "ours" else "google_emulator"
    return str(request.getfixturevalue(name))


MakeHarness = Callable[..., Harness]
#: Any: kombu's stubs know only the base classes of transport and channel.
Connect = Callable[..., Any]


@pytest.fixture
def harness() -> Iterator[MakeHarness]:
    """Make harnesses that are closed with the test."""
    made: list[Harness] = []

    def make(address: str | Callable[[], str], spec: QueueSpec, **options: Any) -> Harness:
        made.append(Harness(address, spec, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def connect(broker: str) -> Iterator[Connect]:
    """Make connections with the test's own prefix; their sessions are closed with the test."""
    made: list[Any] = []
    prefix = unique("p") + "."

    def make(**options: Any) -> Any:
        options = {"emulator_host": broker, "prefix": prefix, **options}
        connection: Any = Connection("pubsub://test-project", transport_options=options)
        connection.connect()
        made.append(connection)
        return connection

    yield make
    for connection in made:
        session = connection.transport.session
        connection.close()
        session.close()
