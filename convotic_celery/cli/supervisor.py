"""Keeps processes running: starts them, restarts those that die, passes signals on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Supervisor"]

#: Passed on to every process.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

#: A process that has run this long was well; its next death counts as the first.
_WELL_AFTER_SECONDS = 30.0
_FIRST_DELAY_SECONDS, _LAST_DELAY_SECONDS = 1.0, 30.0

#: Runs a command that ends as SIGTERM ends it if this process is killed. In a group of its own, so
#: that Ctrl-C in a terminal reaches it through us and once: a second one means "at once" to Celery.
_BOOTSTRAP = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(0)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Supervisor:
    """Runs one process for each command until all have ended.

    A process that dies is restarted, at once the first time, then after 1, 2, 4 … 30 s, until it
    has run for 30 s. Exit code 0 means that it was asked to end: it stays ended. An error before
    any has run that long comes from the command line or the settings, and ends all.
    """

    def __init__(
        self, commands: Sequence[Sequence[str]], *, well_after_seconds: float = _WELL_AFTER_SECONDS
    ) -> None:
        self._commands = commands
        self._well_after = well_after_seconds
        self._running: set[asyncio.subprocess.Process] = set()
        self._stopping = asyncio.Event()
        self._was_well = False
        self._exit_code = 0

    async def run(self) -> int:
        """Return 0 once all have ended in order, else the first exit code that is not 0."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._pass_on, number)
        await asyncio.gather(*map(self._keep, self._commands))
        return self._exit_code

    def _pass_on(self, number: signal.Signals) -> None:
        self._stopping.set()
        for process in self._running:
            _send(process, number)

    async def _keep(self, command: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        delay = 0.0
        while not self._stopping.is_set():
            started = loop.time()
            code = await self._run_once(command)
            is_well = loop.time() - started >= self._well_after
            self._was_well = self._was_well or is_well
            if code > 0 and not self._was_well:
                self._pass_on(signal.SIGTERM)
            if code == 0 or self._stopping.is_set():
                self._note(code)
                return
            delay = 0.0 if is_well else delay
            _say(f"a worker {_describe(code)}; starting it again in {delay:g} s")
            await self._wait(delay)
            delay = min(_LAST_DELAY_SECONDS, 2 * delay or _FIRST_DELAY_SECONDS)

    def _note(self, code: int) -> None:
        if not self._exit_code and -code not in _SIGNALS:  # ours, before it could handle it
            self._exit_code = code if code >= 0 else 128 - code

    async def _run_once(self, command: Sequence[str]) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", _BOOTSTRAP, str(os.getpid()), *command),
            start_new_session=True,
        )
        self._running.add(process)
        if self._stopping.is_set():  # meanwhile
            _send(process, signal.SIGTERM)
        try:
            return await process.wait()
        finally:
            self._running.discard(process)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has just ended, and nobody has heard of it yet
        process.send_signal(number)


def _describe(code: int) -> str:
    return f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"


def _say(text: str) -> None:
    click.echo(f"convotic worker: {text}", err=True)
