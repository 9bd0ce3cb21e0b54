"""How a raw message looks to Celery."""

from __future__ import annotations

import pickle
from typing import Any

from kombu.serialization import loads

from convotic_celery.runtime.delivery.payload import (
    CONTENT_TYPE,
    PayloadBuilder,
    register_serializer,
    show,
    task_id_of,
)
from convotic_pubsub.queue import PayloadDict
from tests.unit.runtime.support import PUBLISHED_AT, receive

BUILDER = PayloadBuilder.for_queue("orders.new.shop", "orders.new.shop")


def build(**values: Any) -> PayloadDict:
    return BUILDER.build(receive(**values), attempt=1)


def test_celery_gets_the_data_untouched() -> None:
    """The decoder hands over the raw bytes as the only argument; nothing is parsed."""
    register_serializer()
    payload = build(data=b"{not json")

    args, kwargs, embed = loads(
        payload["body"], payload["content-type"], payload["content-encoding"], {CONTENT_TYPE}
    )

    assert (args, kwargs, embed) == ([b"{not json"], {}, {})


def test_headers_are_celerys_and_the_facts_are_ours() -> None:
    """What Celery's protocol wants is there, and what Pub/Sub said."""
    payload = BUILDER.build(
        receive(attributes={"source": "api", "convotic-target": "x"}, ordering_key="k"),
        attempt=3,
    )

    headers = payload["headers"]
    assert headers["task"] == "orders.new.shop"
    assert headers["retries"] == 2
    assert headers["id"] == headers["root_id"] == payload["properties"]["correlation_id"]
    assert headers["convotic"] == {
        "message_id": "m-1",
        "pubsub_id": "m-1",
        "attributes": {"source": "api"},
        "ordering_key": "k",
        "published_at": PUBLISHED_AT,
        "attempt": 3,
        "delivery_attempt": 1,
        "replay_count": 0,
        "empty": False,
        "trace": {},
    }
    assert payload["properties"]["delivery_info"]["redelivered"] is True


def test_a_message_without_data_has_a_body_and_says_so() -> None:
    """Celery refuses an empty body."""
    payload = build(data=b"", attributes={"only": "attributes"})

    assert payload["body"] == b"null"
    assert payload["headers"]["convotic"]["empty"] is True


def test_the_task_id_is_stable_and_a_subscriptions_own() -> None:
    """Every redelivery has the same id; another subscription's copy has another."""
    first, again = build()["headers"]["id"], build(delivery_attempt=4)["headers"]["id"]

    assert first == again == task_id_of("orders.new.shop", "m-1")
    assert first != task_id_of("orders.new.crm", "m-1")


def test_a_replay_only_claims_to_be_one() -> None:
    """Its run checks that; the task is a new one, below the first one's."""
    first = build()
    replay = build(
        message_id="m-9",
        attributes={
            "convotic-message-id": "m-1",
            "convotic-replay-count": "1",
            "convotic-replay-token": "t",
        },
    )

    assert replay["headers"]["convotic"]["message_id"] == "m-9"
    assert replay["headers"]["convotic"]["replay_count"] == 0
    assert replay["headers"]["convotic"]["claim"] == ("m-1", 1, "t")
    assert replay["headers"]["id"] != first["headers"]["id"]
    assert replay["headers"]["root_id"] == first["headers"]["id"]


def test_what_people_see_is_short() -> None:
    """Events carry the beginning of the data, also of what is no text."""
    assert show(b'{"id": 1}') == '{"id": 1}'
    assert show(b"x" * 10_000) == "x" * 200 + "…"
    assert show(b"\xff\xfe") == "\ufffd\ufffd"


def test_a_payload_crosses_processes() -> None:
    """Prefork pickles headers and body."""
    payload = build()

    assert pickle.loads(pickle.dumps(payload)) == payload
