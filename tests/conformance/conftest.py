"""The servers that the suite runs against: ours, Google's emulator, and on request the service.

``PUBSUB_CONFORMANCE_PROJECT`` names a Google Cloud project whose service is tested too (with
application default credentials); ``make conformance-cloud`` sets it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.conformance.broker import GOOGLE, OURS, Broker, Features, unique
from tests.support.rest_channel import RestChannel

CLOUD_PROJECT = os.environ.get("PUBSUB_CONFORMANCE_PROJECT", "")
CLOUD = Features(
    **{
        **vars(OURS),
        "name": "cloud",
        "refuses_unsupported": False,
        "local_push": False,
        "is_shared": True,
        "is_ours": False,
    }
)


#: Ours over REST: in files that need no more than unary calls, and no waiting.
REST = Features(**{**vars(OURS), "name": "convotic-rest", "raw": False})
REST_FILES = {"test_resources", "test_schemas", "test_limits"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Drop rows over REST from the other files."""
    items[:] = [
        item for item in items if "convotic-rest" not in item.name or item.path.stem in REST_FILES
    ]


@pytest.fixture(
    params=[
        OURS,
        REST,
        pytest.param(GOOGLE, marks=pytest.mark.google_emulator),
        *([CLOUD] if CLOUD_PROJECT else []),
    ],
    ids=lambda features: features.name,
)
def features(request: pytest.FixtureRequest) -> Features:
    """What the server under test can do."""
    chosen: Features = request.param
    return chosen


@pytest.fixture
def broker(features: Features, request: pytest.FixtureRequest) -> Iterator[Broker]:
    """The server under test, with a project of the test's own."""
    if features.name == "cloud":
        opened = Broker(features, _cloud_channel(), CLOUD_PROJECT)
    elif features.name == "convotic-rest":
        channel: Any = RestChannel(request.getfixturevalue("our_emulator"))
        opened = Broker(features, channel, unique("project"))
    else:
        fixture = "our_emulator" if features.name == "convotic" else "google_emulator"
        channel = grpc.insecure_channel(request.getfixturevalue(fixture))
        opened = Broker(features, channel, unique("project"))
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def topic(broker: Broker) -> str:
    """A topic."""
    return broker.topic()


@pytest.fixture
def subscription(broker: Broker, topic: str) -> str:
    """A subscription of the topic, with default settings."""
    return broker.subscription(topic)


def _cloud_channel() -> grpc.Channel:
    import google.auth  # noqa: PLC0415  # only for this
    import google.auth.exceptions  # noqa: PLC0415
    import google.auth.transport.grpc  # noqa: PLC0415
    import google.auth.transport.requests  # noqa: PLC0415

    try:
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/pubsub"])
    except google.auth.exceptions.DefaultCredentialsError:
        pytest.exit(
            f"No credentials for {CLOUD_PROJECT}: run `gcloud auth application-default login`, or"
            " name a key file in GOOGLE_APPLICATION_CREDENTIALS.",
            returncode=2,
        )
    channel: grpc.Channel = google.auth.transport.grpc.secure_authorized_channel(  # type: ignore[no-untyped-call]  # google-auth's
        credentials, google.auth.transport.requests.Request(), "pubsub.googleapis.com"
    )
    return channel
