"""The embedded servers under ``convotic dev``: running while it runs, stopped with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from convotic_celery.embedded import broker_address, store, store_url
from convotic_celery.errors import ConvoticError
from convotic_emulator import daemon

if TYPE_CHECKING:
    from convotic_celery.settings import Settings

__all__ = ["EmbeddedServers"]

#: Less than their idle timeout: a status request counts as a client.
_LOOK_SECONDS = 5.0


class EmbeddedServers:
    """Emulator and store of the data folder, as far as the settings leave them to us.

    Those that ran before are left running: they may be another program's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.data_dir.expanduser().resolve()
        self._ends_emulator = self._ends_store = False
        #: What the emulator says of itself; None: it is not the embedded one.
        self.emulator: dict[str, Any] | None = None

    async def start(self) -> None:
        """Have them run; raises ConvoticError."""
        # Starting them otherwise warns where their data is; the first line has said that.
        logging.getLogger("convotic_celery").addHandler(logging.NullHandler())
        await asyncio.gather(self._start_emulator(), self._start_store())

    async def keep(self) -> None:
        """Restart one that has ended, and keep them from their idle timeout; until cancelled.

        So they stay while no worker runs because a module has an error.
        """
        idle = self._settings.emulator_idle_timeout
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, max(1, idle) / 3))
            with contextlib.suppress(ConvoticError):  # the worker says what is wrong
                await self._ensure()

    async def stop(self) -> None:
        """End those that were started here; their data stays."""
        if self._ends_emulator:
            await asyncio.to_thread(daemon.stop, self._folder)
        if self._ends_store:
            await asyncio.to_thread(store.stop, self._folder)

    async def _start_emulator(self) -> None:
        if self._settings.broker_is_embedded:
            self._ends_emulator = await asyncio.to_thread(daemon.status, self._folder) is None
            await asyncio.to_thread(broker_address, self._settings)
            self.emulator = await asyncio.to_thread(daemon.status, self._folder)

    async def _start_store(self) -> None:
        if self._settings.store_is_embedded:
            self._ends_store = await asyncio.to_thread(store.status, self._folder) is None
            await asyncio.to_thread(store_url, self._settings)

    async def _ensure(self) -> None:
        if self._settings.broker_is_embedded:
            await asyncio.to_thread(broker_address, self._settings)
        if self._settings.store_is_embedded:
            await asyncio.to_thread(store_url, self._settings)
