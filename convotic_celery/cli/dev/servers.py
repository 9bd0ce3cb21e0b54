"""The embedded servers under ``convotic dev``: running while it runs, ended with it."""

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

#: Less than their idle timeout: they count a look as a client.
_LOOK_SECONDS = 5.0


class EmbeddedServers:
    """Emulator and store of the data folder, as far as the settings leave them to us.

    Those that ran before are left running: another program's they may be.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.data_dir.expanduser().resolve()
        self._ends_emulator = self._ends_store = False
        #: What the emulator says of itself; None: it is not the embedded one.
        self.emulator: dict[str, Any] | None = None

    async def start(self) -> None:
        """Have them run; raises ConvoticError."""
        # Who starts them without logging warns where their data is; here that is said already.
        logging.getLogger("convotic_celery").addHandler(logging.NullHandler())
        await asyncio.gather(self._start_emulator(), self._start_store())

    async def keep(self) -> None:
        """Start one again that has ended, and have none end for want of a client; until cancelled.

        So they live on while no worker runs, because a module has an error.
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
