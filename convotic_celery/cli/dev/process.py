"""One child process of ``convotic dev``: started, given orders, its lines on the screen."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import fcntl
import json
import os
import pty
import signal
import socket
import struct
import sys
import termios
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convotic_celery.cli.dev.screen import Screen

__all__ = ["DevProcess"]

_ROWS = 40


class DevProcess:
    """A running ``child.py``. Made by :meth:`start`."""

    def __init__(
        self,
        program: str,
        process: asyncio.subprocess.Process,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        lines: asyncio.Task[None] | None,
    ) -> None:
        self.program = program
        self._process = process
        self._reports, self._orders = streams
        self._lines = lines

    @classmethod
    async def start(
        cls, program: str, screen: Screen, *, passed: tuple[int, ...] = (), at_terminal: bool
    ) -> DevProcess:
        """Start it as a spare, in a session of its own: Ctrl-C in the terminal is ours.

        With ``at_terminal`` it has the terminal itself, for a debugger; else its lines go to the
        screen. ``passed`` are file descriptors that it inherits.
        """
        ours, theirs = socket.socketpair()
        output = None if at_terminal else _open_output(screen)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "convotic_celery.cli.dev.child", program),
                str(theirs.fileno()),
                stdin=None if at_terminal else asyncio.subprocess.DEVNULL,
                stdout=output and output[1],
                stderr=output and output[1],
                pass_fds=(theirs.fileno(), *passed),
                start_new_session=True,
                env=_environment(screen),
            )
        finally:
            theirs.close()
            if output is not None:
                os.close(output[1])
        streams = await asyncio.open_connection(sock=ours)
        lines = None
        if output is not None:
            lines = asyncio.create_task(_copy(output[0], program, screen))
        return cls(program, process, streams, lines)

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
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill_group(self) -> None:
        """End it now, and what it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Return the exit code once it has ended and its last line is on the screen."""
        code = await self._process.wait()
        if self._lines is not None:
            # What it has started may hold the output open.
            await asyncio.wait([self._lines], timeout=0.5)
            self._lines.cancel()
        self._orders.close()
        return code


def _environment(screen: Screen) -> dict[str, str]:
    environment = dict(os.environ)
    environment.setdefault("PYTHONUNBUFFERED", "1")
    if not screen.is_terminal:  # a person reads it all the same
        environment.setdefault("CONVOTIC_LOG_FORMAT", "text")
    return environment


def _open_output(screen: Screen) -> tuple[int, int]:
    """Return what we read and what the child writes to: a terminal's two ends if we have one.

    So a child colours and cuts its lines as if it were alone in the terminal.
    """
    if not screen.is_terminal:
        return os.pipe()
    ours, theirs = pty.openpty()
    size = struct.pack("HHHH", _ROWS, screen.room, 0, 0)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    return ours, theirs


async def _copy(fd: int, source: str, screen: Screen) -> None:
    """Write a child's lines to the screen, until it closes its output."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
    )
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    try:
        while chunk := await _read_chunk(reader):
            *lines, rest = (rest + decoder.decode(chunk)).replace("\r", "").split("\n")
            screen.write(source, lines)
        if rest:
            screen.write(source, [rest])
    finally:
        transport.close()


async def _read_chunk(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65536)
    except OSError:  # how Linux says that the terminal's other end is closed
        return b""
