"""The parent's end of the process that forks the others: :class:`Nursery`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections import deque
from typing import TYPE_CHECKING

from convotic_celery.cli.dev.output import copy_output, open_output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convotic_celery.cli.dev.screen import Screen

__all__ = ["Nursery", "NurseryDied"]


class NurseryDied(Exception):
    """The nursery ended before it forked; its output says why."""


class Nursery:
    """A process that has imported what all programs need, and forks them (``child.py``).

    When it dies, what it has forked ends too; the next fork starts another nursery.

    Args:
        screen: Where its lines go.
        at_terminal: Whether it, and what it forks, has the terminal itself, for a debugger.
    """

    def __init__(self, screen: Screen, *, at_terminal: bool) -> None:
        self._screen = screen
        self._at_terminal = at_terminal
        self._starting = asyncio.Lock()
        #: Forks that are not reported yet, in order.
        self._waiting: deque[asyncio.Future[int]] = deque()
        #: Of each process that runs; done with its exit code when it has ended.
        self._running: dict[int, asyncio.Future[int]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._orders: socket.socket | None = None
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it, if it does not run; it imports in the background."""
        async with self._starting:
            if self._following is None or self._following.done():
                await self._start()

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        output = None if self._at_terminal else open_output(self._screen)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "convotic_celery.cli.dev.child"),
                str(theirs.fileno()),
                stdin=None if self._at_terminal else asyncio.subprocess.DEVNULL,
                stdout=output and output[1],
                stderr=output and output[1],
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C in the terminal is ours
                env=_environment(self._screen),
            )
        finally:
            theirs.close()
            if output is not None:
                os.close(output[1])
        self._orders = ours.dup()  # what asyncio has of a socket sends no file descriptors
        reader, writer = await asyncio.open_connection(sock=ours)
        lines = None
        if output is not None:
            lines = asyncio.create_task(copy_output(output[0], "dev", self._screen))
        self._following = asyncio.create_task(self._follow(reader, writer, lines))

    async def fork(self, program: str, files: Mapping[str, int]) -> tuple[int, asyncio.Future[int]]:
        """Return the id of a process that waits for orders, and a future of its exit code.

        ``files`` are file descriptors that it gets; the caller's stay open. Raises NurseryDied.
        """
        await self.start()
        assert self._orders is not None
        order = json.dumps({"program": program, "names": [*files]}).encode()
        forked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        try:
            socket.send_fds(self._orders, [order], [*files.values()])
        except OSError:
            raise NurseryDied from None
        self._waiting.append(forked)
        # If this is cancelled, the caller closes its ends of the sockets, and the process ends.
        pid = await forked
        return pid, self._running[pid]

    async def close(self) -> None:
        """End it; end what it has forked first."""
        if self._process is not None and self._following is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await asyncio.wait([self._following])

    async def _follow(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        lines: asyncio.Task[None] | None,
    ) -> None:
        """Take its reports until it ends."""
        assert self._process is not None
        assert self._orders is not None
        while line := await _read_line(reader):
            report = json.loads(line)
            if report["is"] == "forked":
                self._running[report["pid"]] = asyncio.get_running_loop().create_future()
                forked = self._waiting.popleft()
                if not forked.done():
                    forked.set_result(report["pid"])
            elif (ended := self._running.pop(report["pid"], None)) is not None:
                ended.set_result(report["code"])
        self._lose_all()
        writer.close()
        self._orders.close()
        await self._process.wait()
        if lines is not None:
            lines.cancel()
            await asyncio.wait([lines])

    def _lose_all(self) -> None:
        """End what can't be followed any more."""
        running, self._running = self._running, {}
        for pid, ended in running.items():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            ended.set_result(-signal.SIGKILL)
        while self._waiting:
            forked = self._waiting.popleft()
            if not forked.done():
                forked.set_exception(NurseryDied)


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    with contextlib.suppress(ConnectionError):
        return await reader.readline()
    return b""


def _environment(screen: Screen) -> dict[str, str]:
    environment = dict(os.environ)
    environment.setdefault("PYTHONUNBUFFERED", "1")
    if not screen.is_terminal:  # a person reads it all the same
        environment.setdefault("CONVOTIC_LOG_FORMAT", "text")
    return environment
