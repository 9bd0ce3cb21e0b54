"""Orders to all workers: confirmed before the caller goes on, as tasks are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from kombu import Exchange

from convotic_pubsub.errors import PublishError
from tests.support.faulty import FaultyServer, run_faulty_server
from tests.support.pubsub import make_spec, unique

if TYPE_CHECKING:
    from tests.integration.pubsub.conftest import MakeHarness


def send(connection: Any, kind: str) -> None:
    exchange = Exchange("test.fanout" if kind == "fanout" else "celeryev", type=kind)
    connection.Producer().publish({}, exchange=exchange, routing_key="k", declare=[exchange])


@pytest.fixture
def faulty(our_emulator: str) -> Iterator[FaultyServer]:
    """A server that refuses when told."""
    with run_faulty_server(our_emulator) as server:
        yield server


def test_an_order_that_is_not_confirmed_raises(faulty: FaultyServer, harness: MakeHarness) -> None:
    """A revoke, say, that Pub/Sub refuses; an event is not waited for."""
    one = harness(faulty.address, make_spec())
    faulty.faults["Publish"] = (grpc.StatusCode.PERMISSION_DENIED, "not yours")

    with pytest.raises(PublishError, match=r"celery\.control.*not yours"):
        send(one.connection, "fanout")
    send(one.connection, "topic")


def test_a_command_without_listeners_is_no_error(our_emulator: str, harness: MakeHarness) -> None:
    """No worker has ever run here: there is not even a topic."""
    one = harness(our_emulator, make_spec(), prefix=unique("nobody") + ".")

    send(one.connection, "fanout")
