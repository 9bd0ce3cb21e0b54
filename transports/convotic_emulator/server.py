"""The gRPC server: google.pubsub.v1 on one port, in the running event loop."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Self

from google.protobuf.message import DecodeError

from convotic_emulator import __version__
from convotic_emulator.engine.clock import Clock, SystemClock
from convotic_emulator.engine.engine import Engine
from convotic_emulator.errors import StoreError
from convotic_emulator.grpc.server import GrpcServer
from convotic_emulator.services.iam import IamService
from convotic_emulator.services.oidc import TokenSigner
from convotic_emulator.services.publisher import PublisherService
from convotic_emulator.services.push import Pushers
from convotic_emulator.services.push_config import is_loopback
from convotic_emulator.services.schemas import SchemaService
from convotic_emulator.services.status import StatusService
from convotic_emulator.services.subscriber import SubscriberService
from convotic_emulator.storage.store import MEMORY, Store

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path
    from types import TracebackType

    from convotic_emulator.grpc.call import Method
    from convotic_emulator.services.faults import Faults

__all__ = ["EXPOSED", "EmulatorServer"]

logger = logging.getLogger(__name__)

#: Where push receivers find the keys of tokens.
JWKS = "/.well-known/jwks.json"
EXPOSED = "Listening on a host that others can reach; there is no authentication."

#: A publish request has at most 10 MB of messages, and some overhead.
MAX_REQUEST_BYTES = 20 * 1024 * 1024
#: Initial metadata of answers: tells this server from Google's emulator and from the service.
_METADATA = (("convotic-emulator", __version__),)
_SERVICES = (PublisherService, SubscriberService, SchemaService, IamService, StatusService)


class EmulatorServer:
    """An embedded Pub/Sub server. ``async with EmulatorServer() as server: server.address``.

    Args:
        path: the data file; by default messages live in memory only, until :meth:`stop`.
        host: where to listen. There is no authentication: any client can do anything.
        port: 0 takes a free one.
        fsync: a confirmed publish or acknowledgement survives a power loss too.
        clock: time for leases, retention and back-off; tests pass a ManualClock.
        faults: faults to inject, for tests.
        push_hosts: names of hosts that subscriptions may push to, beside this machine's.
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
        push_hosts: Collection[str] = (),
    ) -> None:
        self._path = path
        self._fsync = fsync
        self._clock = clock or SystemClock()
        self._faults = faults
        self._push_hosts = frozenset(host.lower() for host in push_hosts)
        self._server: GrpcServer | None = None
        self._engine: Engine | None = None
        self.host = host.strip("[]")
        self.port = port

    @property
    def address(self) -> str:
        """``host:port`` or ``[::1]:port``, as clients take it. The port is known once started."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_exposed(self) -> bool:
        """Whether it listens where others than this machine may reach it."""
        return not is_loopback(self.host)

    @property
    def has_clients(self) -> bool:
        """Whether a client is connected."""
        return self._server is not None and self._server.has_clients

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
        store = Store(self._path, fsync=self._fsync)
        engine = self._read(store)
        engine.push_hosts = self._push_hosts
        signer = TokenSigner()
        methods = self._methods(engine)

        async def serve_http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            from convotic_emulator.rest.server import Rest  # noqa: PLC0415  # few need it

            await Rest(methods, engine.dispatcher.serve, {JWKS: signer.jwks}).serve(reader, writer)

        server = GrpcServer(
            methods,
            name="convotic_emulator",
            metadata=_METADATA,
            on_handled=engine.dispatcher.serve,
            http1=serve_http1,
            max_request_bytes=MAX_REQUEST_BYTES,
        )
        try:
            self.port = await server.listen(self.host, self.port)
        except OSError as error:
            store.close()
            raise OSError(
                f"Can't listen on {self.address}: the port is taken, or the host is not ours. "
                "Port 0 is any free one."
            ) from error
        if self._faults is not None:
            loop = asyncio.get_running_loop()
            self._faults.send_goaway = lambda: loop.call_soon_threadsafe(server.send_goaway)
        engine.pushing = Pushers(engine, signer)
        engine.start()
        self._server, self._engine = server, engine

    def _read(self, store: Store) -> Engine:
        """Return an engine with what is in the data file; closes that if it is damaged."""
        try:
            return Engine(store, self._clock)
        except (DecodeError, LookupError, TypeError, ValueError) as error:
            store.rollback()
            store.close()
            raise StoreError(
                f"The data file {self._path} is damaged ({error!r}); it was not changed."
            ) from error

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

    def _methods(self, engine: Engine) -> dict[str, Method]:
        methods = {
            f"/{service.NAME}/{name}": method
            for service in _SERVICES
            for name, method in service(engine).methods().items()
        }
        faults = self._faults
        if faults is None:
            return methods
        from convotic_emulator.services.faults import with_faults  # noqa: PLC0415  # for tests only

        engine.broker.take_delay_us = faults.take_delay_us
        return {path: with_faults(path, method, faults, engine) for path, method in methods.items()}

    async def wait_failed(self) -> None:
        """Wait until the data file fails, and raise its error."""
        await asyncio.shield(self.engine.commits.failed)

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
