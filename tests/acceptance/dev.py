"""A running `convotic dev`, as a person at a terminal has it."""

from __future__ import annotations

import codecs
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.support.waiting import PATIENCE, wait_until

__all__ = ["Dev"]

#: Free ones: tests run beside each other.
_PORTS = ("--port", "0", "--dashboard-port", "0")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Dev:
    """``convotic dev`` in a folder, on a terminal of its own. As a context manager it is ended."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "convotic_celery.cli",
                "dev",
                "--dashboard-port",
                "0",
                *arguments,
            ],
            cwd=folder,
            env=os.environ | environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._terminal = ours
        self._text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self._reader.join(5)
            os.close(self._terminal)
            if kind is not None:
                print(self.text)  # noqa: T201 - pytest shows it with the failure

    @property
    def text(self) -> str:
        """All that it has written, without colours."""
        return _COLOURS.sub("", self._text).replace("\r", "")

    @property
    def lines(self) -> list[str]:
        """The lines that it has written, without what stands in front."""
        return [line.partition("│ ")[2] or line for line in self.text.splitlines()]

    def wait_for(self, text: str, *, times: int = 1) -> float:
        """Wait until it has written a text so often; return the time."""

        def is_there() -> bool:
            assert self.process.poll() is None or text in self.text, self.text
            return self.text.count(text) >= times

        wait_until(is_there, what=f"{text!r} in:\n{self.text}")
        return time.monotonic()

    def type(self, text: str) -> None:
        """Type a line at the terminal."""
        os.write(self._terminal, f"{text}\n".encode())

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        with suppress(OSError):  # how Linux says that the other end is closed
            while chunk := os.read(self._terminal, 65536):
                self._text += decoder.decode(chunk)
