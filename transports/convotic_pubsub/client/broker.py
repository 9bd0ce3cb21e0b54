"""The server of one session: where it is, what it can do, and the channels to it (I/O thread)."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

import grpc.aio

from convotic_pubsub.client.channels import ChannelPool
from convotic_pubsub.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from convotic_pubsub.client.rpc import Rpc
    from convotic_pubsub.options import TransportOptions

__all__ = ["Broker"]

logger = logging.getLogger(__name__)

#: The callable that returns the emulator's address is called at most this often.
_LOOK_AGAIN_SECONDS = 1.0
#: No unary call of ours has a longer timeout.
_LONGEST_CALL_SECONDS = 30.0
#: Our emulator names itself in the initial metadata of every answer.
_OUR_EMULATOR: Final = "convotic-emulator"


class Broker:
    """The service, or an emulator that may move to another address.

    ``channels`` is replaced when the server moves, so don't keep it. Everything but ``address``
    and ``is_emulated`` belongs to the I/O thread.
    """

    def __init__(self, options: TransportOptions, clock: Callable[[], float]) -> None:
        self._options = options
        self._clock = clock
        self._emulator: str | None = None
        self._looked_at = 0.0
        self._retiring: set[asyncio.Task[None]] = set()
        self.channels: ChannelPool
        #: Whether messages are streamed: the server honours flow control on streams.
        self.is_streaming = options.pull_mode != "unary"
        #: Whether a stream's heartbeats are answered: as the service does; an emulator may not.
        self.answers_heartbeats = False

    @property
    def address(self) -> str:
        """The emulator's ``host:port``, or the service's endpoint."""
        return self._emulator or self._options.endpoint

    @property
    def is_emulated(self) -> bool:
        """Whether the server is an emulator."""
        return self._emulator is not None

    @property
    def rpc(self) -> Rpc:
        """The methods for unary calls."""
        return self.channels.unary

    @property
    def acks(self) -> Rpc:
        """The methods on a connection of their own, which no other call can fill."""
        return self.channels.acks

    async def connect(self) -> None:
        """Open the channels; an emulator must answer.

        Raises:
            BrokerUnavailable: no emulator answers.
        """
        self._emulator = await self._find_emulator()
        self.channels = ChannelPool(self._options, self._emulator)
        self.answers_heartbeats = not self._emulator
        if self._emulator:
            is_ours = await self._is_ours()
            mode = self._options.pull_mode
            self.is_streaming = mode == "stream" or (mode == "auto" and is_ours)

    async def _find_emulator(self) -> str | None:
        host = self._options.emulator_host
        if callable(host):
            return await asyncio.get_running_loop().run_in_executor(None, host)
        return host

    async def _is_ours(self) -> bool:
        """Ask the emulator for its identity; this also shows whether there is one."""
        call = self.rpc.list_topics(self._options.project)
        metadata: Any  # pairs, which the stubs don't know
        try:
            metadata = await call.initial_metadata()
            await call
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.PERMISSION_DENIED:  # a test of least rights
                metadata = (*error.initial_metadata(), *error.trailing_metadata())
                return any(key == _OUR_EMULATOR for key, _ in metadata)
            raise BrokerUnavailable(
                f"no Pub/Sub emulator answers at {self._emulator}: {error.details()}"
            ) from error
        return any(key == _OUR_EMULATOR for key, _ in metadata or ())

    async def look_again(self) -> None:
        """After a lost connection: ask where the emulator is now, and follow it."""
        now = self._clock()
        is_fixed = not callable(self._options.emulator_host)
        if is_fixed or now < self._looked_at + _LOOK_AGAIN_SECONDS:
            return
        self._looked_at = now
        try:
            address = await self._find_emulator()
        except RuntimeError:  # no thread looks any more: the interpreter is ending
            return
        except Exception as error:  # noqa: BLE001  the caller backs off and asks again
            logger.warning(
                "The emulator can't be started: %s", error, extra={"action": "emulator_lost"}
            )
            return
        if address != self._emulator:
            old, self.channels = self.channels, ChannelPool(self._options, address)
            self._emulator = address
            self.answers_heartbeats = False
            # Calls under way fail by themselves and are repeated; cancelled ones would not be.
            task = asyncio.get_running_loop().create_task(old.close(_LONGEST_CALL_SECONDS))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def replace(self, rpc: Rpc) -> None:
        """Replace the connection of these methods: a call on it was not answered in time."""
        self.channels.replace(rpc)

    def replace_acks(self) -> None:
        """Replace the connection of acknowledgements: one was not answered in time."""
        self.channels.replace(self.acks)

    async def close(self) -> None:
        """Close the channels, and with them every call under way."""
        await self.channels.close()
