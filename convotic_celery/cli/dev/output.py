"""Where a child of ``convotic dev`` writes, and how that gets onto the screen."""

from __future__ import annotations

import asyncio
import codecs
import fcntl
import os
import pty
import struct
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convotic_celery.cli.dev.screen import Screen

__all__ = ["copy_output", "open_output"]

_ROWS = 40


def open_output(screen: Screen) -> tuple[int, int]:
    """Return what we read and what the child writes to: a terminal's two ends if we have one.

    So a child colours and cuts its lines as if it were alone in the terminal.
    """
    if not screen.is_terminal:
        return os.pipe()
    ours, theirs = pty.openpty()
    size = struct.pack("HHHH", _ROWS, screen.room, 0, 0)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    return ours, theirs


async def copy_output(fd: int, source: str, screen: Screen) -> None:
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
