"""What the parent and a child of ``convotic dev`` say to each other, and the child's end of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from typing import Any

__all__ = ["Control", "Orders"]


@dataclass(frozen=True, slots=True)
class Orders:
    """What the parent says with ``load``."""

    #: How many children of this program there were before; names the worker.
    number: int
    #: The listening socket, which the child knows by its own number; -1: none is needed.
    listener: int = -1
    #: To stop at breakpoints, and the port for VS Code; None: no debugging.
    debug_port: int | None = None


class Control:
    """The child's end of the socket."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._lines = self._socket.makefile("r", encoding="utf-8")

    def report(self, what: str, **facts: Any) -> None:
        """Tell the parent; nothing happens if it has ended."""
        line = json.dumps({"is": what, **facts}) + "\n"
        try:
            self._socket.sendall(line.encode())
        except OSError:
            return

    def wait(self) -> dict[str, Any]:
        """Return the next order. Ends the process if the parent has ended."""
        line = self._lines.readline()
        if not line:
            sys.exit(0)
        order: dict[str, Any] = json.loads(line)
        return order

    def end_with_parent(self) -> None:
        """From now on, be ended by SIGTERM when the parent ends."""
        threading.Thread(target=self._watch, name="convotic-dev-parent", daemon=True).start()

    def _watch(self) -> None:
        self._lines.read()
        os.kill(os.getpid(), signal.SIGTERM)
