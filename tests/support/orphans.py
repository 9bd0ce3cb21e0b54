"""The embedded emulator that a process of the test's own started and left behind."""

from __future__ import annotations

from pathlib import Path

import psutil

from convotic_emulator import daemon
from tests.support.waiting import wait_until

__all__ = ["end_emulator"]


def end_emulator(data_dir: Path) -> None:
    """End the folder's emulator and wait until its process is gone, not only its lock.

    An emulator that this process started is reaped by ``daemon.stop``; an orphan is not ours.
    """
    info = daemon.status(data_dir)
    daemon.stop(data_dir)
    if info is not None:
        wait_until(
            lambda: not psutil.pid_exists(int(info["pid"])),
            what="the emulator's process is gone",
        )
