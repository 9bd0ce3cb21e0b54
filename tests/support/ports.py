"""Ports for servers that are told theirs: free now, and free until they listen."""

from __future__ import annotations

import atexit
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convotic_emulator import daemon
from tests.support.waiting import wait_until

__all__ = ["emulator_on_own_port", "free_port"]

#: Below those that the system gives to connections and to servers that name no port (from 32,768
#: on). So nothing takes one between the look and the server's start, or while a server restarts.
_PORTS = range(10_000, 32_768)

#: Not the module's: pytest-randomly gives each test of each process the same numbers, so the same
#: two hundred ports to choose from.
_random = random.SystemRandom()
#: UDP sockets of the same numbers: they reserve them from tests of other processes.
_reserved: list[socket.socket] = []


def free_port() -> int:
    """Return a TCP port that nobody listens on, and that no other test is given."""
    for port in _random.sample(_PORTS, 200):
        reservation = socket.socket(type=socket.SOCK_DGRAM)
        try:
            reservation.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("0.0.0.0", port))
        except OSError:
            reservation.close()
            continue
        _reserved.append(reservation)
        return port
    raise AssertionError("no port is free")


@contextmanager
def emulator_on_own_port(folder: Path) -> Iterator[int]:
    """Run a folder's emulator for the block, which kills it; nobody else gets its port then."""
    command = [sys.executable, "-m", "convotic_emulator", "--data-dir", str(folder)]
    port = free_port()
    with subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL):
        wait_until(lambda: daemon.status(folder), what="the emulator")
        yield port


@atexit.register
def _release() -> None:
    for each in _reserved:
        each.close()
