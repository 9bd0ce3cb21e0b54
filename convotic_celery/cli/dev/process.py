"""One child process of ``convotic dev``: forked, given orders, its lines on the screen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

from convotic_celery.cli.dev.output import copy_output, open_output

if TYPE_CHECKING:
    from convotic_celery.cli.dev.nursery import Nursery
    from convotic_celery.cli.dev.screen import Screen

__all__ = ["DevProcess"]


class DevProcess:
    """A process that the nursery has forked. Made by :meth:`start`."""

    def __init__(
        self,
        pid: int,
        ended: asyncio.Future[int],
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        lines: asyncio.Task[None] | None,
    ) -> None:
        self._pid = pid
        self._ended = ended
        self._reports, self._orders = streams
        self._lines = lines

    @classmethod
    async def start(
        cls,
        nursery: Nursery,
        program: str,
        screen: Screen,
        *,
        listener: int | None = None,
        at_terminal: bool,
    ) -> DevProcess:
        """Have it forked; it waits for orders.

        With ``at_terminal`` it writes to the terminal itself; else its lines go to the screen.
        ``listener`` is the socket that it is to serve on.
        """
        ours, theirs = socket.socketpair()
        output = None if at_terminal else open_output(screen)
        files = {"control": theirs.fileno()}
        if output is not None:
            files["output"] = output[1]
        if listener is not None:
            files["listener"] = listener
        try:
            pid, ended = await nursery.fork(program, files)
        except BaseException:
            ours.close()
            if output is not None:
                os.close(output[0])
            raise
        finally:
            theirs.close()
            if output is not None:
                os.close(output[1])
        streams = await asyncio.open_connection(sock=ours)
        lines = None
        if output is not None:
            lines = asyncio.create_task(copy_output(output[0], program, screen))
        return cls(pid, ended, streams, lines)

    async def order(self, **order: Any) -> None:
        """Send an order; nothing happens if the child has ended."""
        self._orders.write(json.dumps(order).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await self._orders.drain()

    async def expect(self, *wanted: str) -> dict[str, Any] | None:
        """Return the next report of one of these kinds; None if the child ends before."""
        while line := await self._read():
            report: dict[str, Any] = json.loads(line)
            if report["is"] in wanted:
                return report
        return None

    async def _read(self) -> bytes:
        with contextlib.suppress(ConnectionError):
            return await self._reports.readline()
        return b""

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def kill_group(self) -> None:
        """End it now, and what it has started."""
        if not self._ended.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Return the exit code once it has ended and its last line is on the screen."""
        code = await asyncio.shield(self._ended)
        if self._lines is not None:
            # What it has started may hold the output open.
            await asyncio.wait([self._lines], timeout=0.5)
            self._lines.cancel()
        self._orders.close()
        return code
