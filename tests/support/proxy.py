"""A TCP proxy with the faults of a network: distance, resets, silence. Needs no privileges."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.support.waiting import PATIENCE

__all__ = ["Proxy", "run_proxy"]

_CHUNK_BYTES = 1 << 16
#: Chunks on their way in one direction; the sender waits beyond that.
_IN_FLIGHT = 4096


class _Link:
    """One connection through the proxy, in both directions."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.writers = [*writers]
        self.is_silent = False
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True
        for writer in self.writers:
            writer.transport.abort()


class Proxy:
    """Passes bytes to ``target`` and back, as its attributes say. Thread-safe.

    Args:
        target: ``host:port``, or the path of a Unix socket.
        tls: with it, clients must speak TLS; the target hears plain bytes.
    """

    def __init__(self, target: str, tls: ssl.SSLContext | None = None) -> None:
        self._target = target
        self._tls = tls
        #: One way, in seconds; a round trip takes twice that. May be changed at any time.
        self.delay_seconds = 0.0
        #: Connections that were made so far.
        self.connections = 0
        #: ``host:port`` for clients.
        self.address = ""
        self._refuses = False
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._passes = asyncio.Event()
        self._passes.set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(PATIENCE)

    def reset(self) -> None:
        """Reset all open connections, as a restarted load balancer does."""
        self._call(self._abort_all)

    def silence(self) -> None:
        """Let open connections pass nothing any more, without an end; new ones work."""

        def mark() -> None:
            for link in self._links:
                link.is_silent = True

        self._call(mark)

    def pause(self) -> None:
        """Hold everything back, on open and on new connections, until :meth:`resume`."""
        self._call(self._passes.clear)

    def resume(self) -> None:
        """Pass on what was held back; accept connections again."""
        self._refuses = False
        self._call(self._passes.set)

    def refuse(self) -> None:
        """Reset what is open, and each new connection, until :meth:`resume`."""
        self._refuses = True
        self.reset()

    def close(self) -> None:
        """End all connections and the thread."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def _call(self, change: Callable[[], object]) -> None:
        done = threading.Event()

        def run() -> None:
            change()
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait(PATIENCE)

    def _abort_all(self) -> None:
        for link in self._links:
            link.abort()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _stop(self) -> None:
        self._refuses = True
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._abort_all()  # a task that had not begun has not done it
        for _ in range(5):  # what was just accepted is refused, and all sockets are closed
            await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        self.connections += 1
        link = _Link(writer)
        self._links.add(link)  # before it is whole: what is reset now is reset with the others
        task = self._loop.create_task(self._serve(reader, link))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, link: _Link) -> None:
        (writer,) = link.writers
        try:
            there_reader, there_writer = await self._connect()
            link.writers.append(there_writer)
            if link.is_aborted:
                return
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, there_writer, link))
                group.create_task(self._pump(there_reader, writer, link))
        except* OSError:
            pass  # nobody is there, or one side has reset it: so do we
        finally:
            self._links.discard(link)
            link.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if "/" in self._target:
            return await asyncio.open_unix_connection(self._target)
        host, _, port = self._target.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link
    ) -> None:
        """Pass one direction on, each chunk ``delay_seconds`` after it came, up to its end."""
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_IN_FLIGHT)
        delivering = self._loop.create_task(self._deliver(on_the_way, writer, link))
        try:
            data = b"-"
            while data:
                data = await reader.read(_CHUNK_BYTES)
                await on_the_way.put((self._loop.time() + self.delay_seconds, data))
            await delivering
        finally:
            delivering.cancel()

    async def _deliver(
        self,
        on_the_way: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        link: _Link,
    ) -> None:
        while True:
            due, data = await on_the_way.get()
            if (wait := due - self._loop.time()) > 0:
                await asyncio.sleep(wait)
            await self._passes.wait()
            if link.is_silent:
                continue  # not even its end is passed on
            if not data:
                with suppress(OSError, RuntimeError):
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()


@contextmanager
def run_proxy(target: str, tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    """Run a proxy in front of ``target`` for the block."""
    proxy = Proxy(target, tls)
    try:
        yield proxy
    finally:
        proxy.close()
