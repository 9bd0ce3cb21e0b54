"""A session on an emulator, with a project of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from convotic_pubsub.options import TransportOptions
from convotic_pubsub.session import Session
from tests.support.pubsub import unique


@pytest.fixture
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """A session of the test's own project, on our emulator or the one that a test names."""
    address = request.getfixturevalue(getattr(request, "param", "our_emulator"))
    session = Session(TransportOptions(project=unique("shop"), emulator_host=address))
    yield session
    session.close()
