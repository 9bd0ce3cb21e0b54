"""The gRPC server: google.pubsub.v1 on one port, in the running event loop."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf.message import DecodeError

from convotic_emulator.clock import Clock, SystemClock
from convotic_emulator.engine import Engine
from convotic_emulator.errors import StoreError
from convotic_emulator.iam import IamService
from convotic_emulator.publisher import PublisherService
from convotic_emulator.push_config import is_loopback
from convotic_emulator.rpc import UnknownMethods
from convotic_emulator.schemas import SchemaService
from convotic_emulator.status import StatusService
from convotic_emulator.store import MEMORY, Store
from convotic_emulator.subscriber import SubscriberService

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from convotic_emulator.faults import Faults

__all__ = ["EXPOSED", "EmulatorServer"]

logger = logging.getLogger(__name__)

EXPOSED = "Listening on a host that others can reach; there is no authentication."

#: A publish request has at most 10 MB of messages, and some overhead.
MAX_REQUEST_BYTES = 20 * 1024 * 1024
#: Clients ping every 30 s; a server that did not expect it would close their connection.
MIN_PING_INTERVAL_MS = 10_000

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    # Otherwise two servers could listen on one port, each getting half of the connections.
    ("grpc.so_reuseport", 0),
)


class EmulatorServer:
    """An embedded Pub/Sub server. ``async with EmulatorServer() as server: server.address``.

    Args:
        path: the data file; by default messages live in memory only, until :meth:`stop`.
        host: where to listen. There is no authentication: anybody who can connect can do anything.
        port: 0 takes a free one.
        fsync: a confirmed publish or acknowledgement survives a power loss too.
        clock: time for leases, retention and back-off; tests pass a ManualClock.
        faults: what shall go wrong, for tests.
    """

    def __init__(
        self,
        path: Path | str = MEMORY,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        fsync: bool = False,
        clock: Clock | None = None,
        faults: Faults | None = None,
    ) -> None:
        self._path = path
        self._fsync = fsync
        self._clock = clock or SystemClock()
        self._faults = faults
        self._server: grpc.aio.Server | None = None
        self._engine: Engine | None = None
        self.host = host
        self.port = port

    @property
    def address(self) -> str:
        """``host:port``, as PUBSUB_EMULATOR_HOST takes it. The port is known once started."""
        return f"{self.host}:{self.port}"

    @property
    def is_exposed(self) -> bool:
        """Whether it listens where others than this machine may reach it."""
        return not is_loopback(self.host.strip("[]"))

    @property
    def engine(self) -> Engine:
        """What the server runs; only while it is started."""
        if self._engine is None:
            raise RuntimeError("The server is not started.")
        return self._engine

    async def start(self) -> None:
        """Open the data file and listen. Idempotent.

        Raises:
            StoreError: the data file can't be used; it was not changed.
            OSError: the port is taken.
        """
        if self._server is not None:
            return
        if self.is_exposed:
            logger.warning(EXPOSED, extra={"action": "emulator_exposed", "host": self.host})
        store = Store(self._path, fsync=self._fsync, now_us=self._clock.now_us())
        try:
            engine = Engine(store, self._clock)
        except (DecodeError, LookupError, TypeError, ValueError) as error:
            store.rollback()
            store.close()
            raise StoreError(
                f"The data file {self._path} is damaged ({error!r}); it was not changed."
            ) from error
        server = grpc.aio.server(options=_OPTIONS, interceptors=self._interceptors(engine))
        for service in (
            PublisherService(engine),
            SubscriberService(engine),
            SchemaService(engine),
            IamService(engine),
            StatusService(engine),
        ):
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service.NAME, service.handlers()),)
            )
        server.add_generic_rpc_handlers((UnknownMethods(),))
        try:
            self.port = server.add_insecure_port(f"{self.host}:{self.port}")
        except RuntimeError as error:
            store.close()
            # gRPC's own text tells to set GRPC_VERBOSITY; it has written the reason to stderr.
            raise OSError(
                f"Can't listen on {self.address}: the port is taken, or the host is not ours. "
                "Port 0 is any free one."
            ) from error
        await server.start()
        engine.start()
        self._server, self._engine = server, engine

    async def stop(self, grace_seconds: float = 1.0) -> None:
        """End streams with UNAVAILABLE, let calls finish, and close the data file. Idempotent."""
        server, engine = self._server, self._engine
        if server is None or engine is None:
            return
        self._server = None
        engine.refuse_waiters()
        await server.stop(grace_seconds)
        engine.stop()
        self._engine = None

    def _interceptors(self, engine: Engine) -> list[Any]:
        if self._faults is None:
            return []
        from convotic_emulator.faults import FaultInterceptor  # noqa: PLC0415  # for tests only

        engine.broker.take_delay_us = self._faults.take_delay_us
        return [FaultInterceptor(self._faults, engine)]

    async def wait_failed(self) -> None:
        """Wait until the data file fails; raises its error. For whoever runs a server for long."""
        await asyncio.shield(self.engine.failed)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()
