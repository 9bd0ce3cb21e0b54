"""A gRPC server of our own whose methods echo."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from convotic_emulator.grpc.server import GrpcServer
from tests.unit.emulator.grpc.peer import Echo, started


@pytest.fixture
async def echo() -> Echo:
    return Echo()


@pytest.fixture
async def server(echo: Echo) -> AsyncIterator[GrpcServer]:
    running, port = await started(echo)
    running.port = port  # type: ignore[attr-defined]  # for the tests
    yield running
    await running.stop(0)
