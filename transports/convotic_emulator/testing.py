"""A pytest plugin: a Pub/Sub server for each test, in milliseconds, with a clock and faults.

Installed with the package; nothing needs to be configured::

    def test_a_lost_acknowledgement_does_no_harm(pubsub_emulator):
        pubsub_emulator.faults.lose_acks()
        ...                            # any client: PUBSUB_EMULATOR_HOST is set
        pubsub_emulator.advance(60)    # leases lapse now
"""

# Loaded by every pytest of the environment: gRPC is imported only when a server is started.

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from convotic_emulator.engine.clock import ManualClock
    from convotic_emulator.server import EmulatorServer
    from convotic_emulator.services.faults import Faults

__all__ = ["EmulatorThread", "pubsub_emulator"]

#: Starting and stopping take milliseconds; this is for a machine in trouble.
_PATIENCE_SECONDS = 60.0

Value = TypeVar("Value")


class EmulatorThread:
    """A server in this process, in a thread of its own. ``with EmulatorThread() as emulator:``.

    Args:
        clock: by default one that runs, and that :meth:`advance` moves ahead. A ManualClock stands
            still in between.
    """

    def __init__(self, clock: ManualClock | None = None) -> None:
        from convotic_emulator.engine.clock import RunningClock  # noqa: PLC0415  # see above
        from convotic_emulator.services.faults import Faults  # noqa: PLC0415

        self.clock: ManualClock = clock or RunningClock()
        #: Faults to inject.
        self.faults: Faults = Faults()
        self._server: EmulatorServer | None = None

    @property
    def server(self) -> EmulatorServer:
        """The server; its parts belong to its own thread."""
        if self._server is None:
            raise RuntimeError("The emulator is not started.")
        return self._server

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``, as PUBSUB_EMULATOR_HOST takes it."""
        return self.server.address

    def start(self) -> None:
        """Start to serve."""
        from convotic_emulator.server import EmulatorServer  # noqa: PLC0415  # see above

        self._server = EmulatorServer(clock=self.clock, faults=self.faults)
        _LOOP.run(self._server.start())

    def stop(self) -> None:
        """End; what the server had is gone. Idempotent."""
        if self._server is not None:
            _LOOP.run(self._server.stop(grace_seconds=0))

    def advance(self, seconds: float) -> None:
        """Move time ahead: what is due has happened when this returns."""
        self.clock.advance(seconds)
        _LOOP.run(self._maintain())

    def count(self, subscription: str) -> int:
        """Return how many messages a subscription (by its full name) has not acknowledged."""

        async def count() -> int:
            engine = self.server.engine
            return engine.store.counts.messages(
                engine.registry.subscription(subscription).row.number
            )

        return _LOOP.run(count())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _maintain(self) -> None:
        engine = self.server.engine
        engine.tick()
        engine.upkeep.maintain()
        while engine.upkeep.sweep():
            await engine.commits.committed()


class _Loop:
    """One event loop in a thread for all servers of the process, started by the first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Run a coroutine in the loop; return its result."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="convotic-emulator", daemon=True
                ).start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_SECONDS)


_LOOP = _Loop()


@pytest.fixture
def pubsub_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatorThread]:
    """A Pub/Sub server of the test's own; PUBSUB_EMULATOR_HOST names it."""
    with EmulatorThread() as emulator:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", emulator.address)
        yield emulator
