"""What Pub/Sub can't do is refused, not dropped."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from amqp.exceptions import ChannelError
from kombu import Connection, Exchange, Queue

from convotic_pubsub.errors import PublishError


@pytest.fixture
def connection(our_emulator: str) -> Iterator[Connection]:
    project = f"unsupported-{uuid.uuid4().hex[:8]}"
    options = {"emulator_host": our_emulator}
    with Connection(f"pubsub://{project}", transport_options=options) as connection:
        yield connection


def test_a_headers_exchange_is_refused(connection: Connection) -> None:
    """Where it is declared, with what to use instead."""
    queue = Queue("q", Exchange("h", type="headers"), binding_arguments={"x-match": "all"})

    with pytest.raises(ChannelError, match="use one of direct, topic, fanout"):
        queue(connection.default_channel).declare()


def test_a_message_s_expiration_is_refused(connection: Connection) -> None:
    """It would stay for as long as any other."""
    Queue("q", Exchange("d"))(connection.default_channel).declare()

    with pytest.raises(PublishError, match="use Celery's expires="):
        connection.Producer().publish({}, routing_key="q", expiration=3)
