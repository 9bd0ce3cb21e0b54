"""The life of a server process: it listens, announces its address, and ends when unused."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import signal
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from convotic_emulator import __version__, daemon
from convotic_emulator.server import EXPOSED, EmulatorServer
from convotic_emulator.services.page import Page
from convotic_emulator.services.resources import apply_resources
from convotic_local.announced import find_page

if TYPE_CHECKING:
    import argparse

    from convotic_local import LocalServer
    from convotic_local.server import Record

__all__ = ["serve"]

logger = logging.getLogger(__name__)

#: Never look for clients more often, nor (for a long idle time) more rarely.
_MIN_CHECK_SECONDS = 0.2
_MAX_CHECK_SECONDS = 10.0

#: Of the garbage collector, for the process. What is left of a request is freed without it, and to
#: look through all that is loaded takes 15 ms, in which every client waits.
_COLLECTIONS = (10_000, 20, 20)


#: Errors of accept() that last until descriptors or memory are freed.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_REPEAT_SECONDS = 60.0


class LoopErrors:
    """Logs what an event loop reports; that it can't accept connections, once a minute.

    asyncio reports that 128 times a second, with a traceback each.
    """

    def __init__(self) -> None:
        self._logged_at = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Be the loop's exception handler."""
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _EXHAUSTED):
            loop.default_exception_handler(context)
        elif time.monotonic() - self._logged_at >= _REPEAT_SECONDS:
            self._logged_at = time.monotonic()
            logger.error("No connection can be accepted now: %s. It is tried again.", error)


async def serve(options: argparse.Namespace) -> None:
    """Serve ``options.data_dir`` until a signal, the end of the last client, or a failure."""
    own = daemon.local_server(options.data_dir)
    last = own.last() or {}
    server = await _listen(options, last)
    if options.resources is not None:
        try:
            await apply_resources(options.resources, server.engine)
        except BaseException:
            await server.stop()
            raise
    page = Page(server.engine, find_dashboard=partial(find_page, options.data_dir))
    port = last.get("page_port")
    await page.start(port if isinstance(port, int) else 0)
    gc.freeze()
    gc.set_threshold(*_COLLECTIONS)
    # Before other processes can find this one, and signal it.
    ends = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(LoopErrors())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ends.set)
    _announce(own, server, page)
    logger.info("Serving %s on %s.", options.data_dir, server.address)
    waits = [asyncio.create_task(ends.wait()), asyncio.create_task(server.wait_failed())]
    if options.idle_seconds > 0:
        waits.append(asyncio.create_task(_wait_idle(server, page, own, options.idle_seconds)))
    done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    own.withdraw()
    await page.stop()
    await server.stop()
    logger.info("Stopped.")
    for task in done:
        task.result()


def _announce(own: LocalServer, server: EmulatorServer, page: Page) -> None:
    """Let other processes find this one, and say on the terminal where it is."""
    own.announce(
        {
            "address": server.address,
            "host": server.host,
            "port": server.port,
            "version": __version__,
            "started_at": time.time(),
            "page": page.url,
            "page_port": page.port,
        }
    )
    if server.is_exposed:
        print(f"Warning: {EXPOSED}", file=sys.stderr)  # noqa: T201  # the log has it too
    print(f"PUBSUB_EMULATOR_HOST={server.address}", flush=True)  # noqa: T201  # for a person
    print(f"In a browser: {page.url}", flush=True)  # noqa: T201  # as above


async def _listen(options: argparse.Namespace, last: Record) -> EmulatorServer:
    """Start on the given port, on that of the last run, or on any free one."""
    ports: list[int] = [options.port]
    if not options.port and last.get("host") == options.host and isinstance(last.get("port"), int):
        ports.insert(0, last["port"])
    for port in ports:
        server = EmulatorServer(
            options.data_dir / daemon.DATA_FILE,
            host=options.host,
            port=port,
            fsync=options.fsync,
            push_hosts=options.push_host,
        )
        try:
            await server.start()
        except OSError:
            if port is ports[-1]:
                raise
        else:
            return server
    raise AssertionError("one of the ports was tried last")


async def _wait_idle(
    server: EmulatorServer, page: Page, own: LocalServer, idle_seconds: float
) -> None:
    """Return when no client was connected for ``idle_seconds`` and the address is withdrawn."""
    interval = min(max(idle_seconds / 4, _MIN_CHECK_SECONDS), _MAX_CHECK_SECONDS)
    last_seen = time.monotonic()
    while True:
        await asyncio.sleep(interval)
        if server.has_clients or own.asked_seconds_ago() < idle_seconds:
            last_seen = time.monotonic()
        last_seen = max(last_seen, page.used_at)
        is_idle = time.monotonic() - last_seen >= idle_seconds
        if is_idle and own.withdraw(unless_asked_for_seconds=idle_seconds):
            break
    logger.info("No client for %s s.", idle_seconds)
