"""A session on our emulator, with a project of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from convotic_pubsub.options import TransportOptions
from convotic_pubsub.session import Session
from tests.support.pubsub import unique


@pytest.fixture
def session(our_emulator: str) -> Iterator[Session]:
    """A session of the test's own project."""
    session = Session(TransportOptions(project=unique("shop"), emulator_host=our_emulator))
    yield session
    session.close()
