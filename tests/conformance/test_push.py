"""Push delivery to an endpoint on this machine."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.pubsub_v1.types import pubsub as t

from tests.conformance.broker import Broker, bodies
from tests.support.http_endpoint import Endpoint
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def local(broker: Broker) -> None:
    broker.needs("local_push", "can't reach this machine")


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as running:
        yield running


def config(endpoint: Endpoint, **fields: Any) -> Any:
    return t.PushConfig.pb()(push_endpoint=endpoint.url, **fields)


def test_a_message_is_pushed_wrapped_in_json(
    broker: Broker, topic: str, endpoint: Endpoint
) -> None:
    """Data in base64, attributes, ids and time in both spellings, the subscription's name."""
    subscription = broker.subscription(topic, push_config=config(endpoint))

    [message_id] = broker.publish(topic, b"\x00hello", attributes={"a": "1"})

    wait_until(lambda: endpoint.requests)
    [request] = endpoint.requests
    assert request.path == "/push?token=t"
    assert request.headers["content-type"].startswith("application/json")
    envelope = json.loads(request.body)
    assert envelope["subscription"] == subscription
    message = envelope["message"]
    assert base64.b64decode(message["data"]) == b"\x00hello"
    assert message["attributes"] == {"a": "1"}
    assert message["messageId"] == message["message_id"] == message_id
    assert message["publishTime"] == message["publish_time"]


def test_what_is_refused_is_pushed_again(broker: Broker, topic: str, endpoint: Endpoint) -> None:
    """Until the endpoint answers with a success."""
    endpoint.statuses.extend([500, 404])
    broker.subscription(topic, push_config=config(endpoint))

    broker.publish(topic, b"x")

    wait_until(lambda: len(endpoint.requests) == 3)
    assert len({json.loads(r.body)["message"]["messageId"] for r in endpoint.requests}) == 1


def test_without_wrapper_the_body_is_the_data(
    broker: Broker, topic: str, endpoint: Endpoint
) -> None:
    """And the rest is in headers, if that is asked for."""
    no_wrapper = t.PushConfig.NoWrapper.pb()(write_metadata=True)
    subscription = broker.subscription(topic, push_config=config(endpoint, no_wrapper=no_wrapper))

    [message_id] = broker.publish(topic, b"raw", attributes={"kind": "a"})

    wait_until(lambda: endpoint.requests)
    [request] = endpoint.requests
    assert request.body == b"raw"
    assert request.headers["x-goog-pubsub-message-id"] == message_id
    assert request.headers["x-goog-pubsub-subscription-name"] == subscription
    assert request.headers["kind"] == "a"


def test_a_push_subscription_becomes_a_pull_subscription(
    broker: Broker, topic: str, endpoint: Endpoint
) -> None:
    """By an empty configuration; nothing is pushed from then on."""
    subscription = broker.subscription(topic, push_config=config(endpoint))
    broker.publish(topic, b"pushed")
    wait_until(lambda: endpoint.requests)

    broker.call("ModifyPushConfig", subscription=subscription, push_config=t.PushConfig.pb()())
    broker.publish(topic, b"pulled")

    # The endpoint's answer to the first may not have arrived: then that one comes, too.
    wait_until(lambda: b"pulled" in bodies(broker.pull_now(subscription)))
    assert len(endpoint.requests) == 1


def test_a_push_subscription_cannot_be_pulled(
    broker: Broker, topic: str, endpoint: Endpoint
) -> None:
    """FAILED_PRECONDITION."""
    broker.needs("limits", "allows both at once")
    subscription = broker.subscription(topic, push_config=config(endpoint))

    with pytest.raises(grpc.RpcError) as refused:
        broker.pull_now(subscription)

    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
