"""Brokers for the transport's tests: our emulator and Google's, in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from convotic_pubsub.queue import QueueSpec
from tests.support.pubsub import Harness


@pytest.fixture(params=["ours", pytest.param("google", marks=pytest.mark.google_emulator)])
def broker(request: pytest.FixtureRequest) -> str:
    """The address of each of the two emulators in turn."""
    name = "our_emulator" if request.param == "ours" else "google_emulator"
    return str(request.getfixturevalue(name))


MakeHarness = Callable[..., Harness]


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
