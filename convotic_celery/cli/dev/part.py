"""Keeps one program of ``convotic dev`` running, and replaces it: :class:`Part`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any

from convotic_celery.cli.dev.nursery import NurseryDied
from convotic_celery.cli.dev.process import DevProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from convotic_celery.cli.dev.nursery import Nursery
    from convotic_celery.cli.dev.screen import Screen

__all__ = ["NotReplaced", "Part", "describe_end"]

#: How long the old process may take to report that it takes no more messages.
_STOPPING_SECONDS = 1.0


class NotReplaced(Exception):
    """The new process did not become ready; the text is for a person."""

    def __init__(self, text: str, folders: list[str]) -> None:
        super().__init__(text)
        self.folders = folders


class Part:
    """One program: the process that runs it, and those that are ending.

    Args:
        program: A name in ``programs.py``.
        nursery: What forks its processes.
        screen: Where its lines go.
        at_terminal: Whether it has the terminal itself. Then the old process ends before the new
            one begins; else they overlap, so that somebody always consumes.
        overlaps: False where there may be only one.
        on_end: Called with the exit code when it ends by itself.
    """

    def __init__(
        self,
        program: str,
        nursery: Nursery,
        screen: Screen,
        *,
        at_terminal: bool = False,
        overlaps: bool = True,
        on_end: Callable[[Part, int], None],
    ) -> None:
        self.program = program
        self._nursery = nursery
        self._screen = screen
        self._at_terminal = at_terminal
        self._overlaps = overlaps and not at_terminal
        self._on_end = on_end
        self._current: DevProcess | None = None
        self._count = 0
        #: All that have not ended, with what waits for it.
        self._all: dict[DevProcess, asyncio.Task[None]] = {}

    @property
    def runs(self) -> bool:
        """True while a process of it is ready."""
        return self._current is not None

    async def replace(self, *, listener: int | None = None, **orders: Any) -> dict[str, Any]:
        """Return what the new process has loaded, once it runs and the old one has stopped taking.

        ``listener`` is the socket that it is to serve on; the others are :class:`.Orders`.

        Raises:
            NotReplaced: The code can't be loaded, and the old process goes on; or it was loaded and
                ended before it was ready.
        """
        try:
            new = await self._start(listener)
        except NurseryDied:
            raise NotReplaced(f"the {self.program}'s process can't be started", []) from None
        self._count += 1
        try:
            await new.order(number=self._count, **orders)
            facts = await self._load(new)
            if not self._overlaps:
                await self.end()
            await self._run(new, facts)
        except BaseException:
            new.send(signal.SIGTERM)
            raise
        old, self._current = self._current, new
        if old is not None:
            old.send(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(old.expect("stopping"), _STOPPING_SECONDS)
        return facts

    async def end(self) -> None:
        """End what runs, and return once it has."""
        current, self._current = self._current, None
        if current is not None:
            current.send(signal.SIGTERM)
            await asyncio.wait([self._all[current]])

    async def close(self) -> None:
        """End everything, and return once it has ended."""
        self._current = None
        for process in self._all:
            process.send(signal.SIGTERM)
        while self._all:
            await asyncio.wait(list(self._all.values()))

    def kill(self) -> None:
        """End everything now."""
        for process in self._all:
            process.kill_group()

    async def _load(self, new: DevProcess) -> dict[str, Any]:
        report = await new.expect("loaded", "failed")
        if report is None:
            raise NotReplaced(f"the {self.program} {describe_end(await new.wait())}", [])
        if report["is"] == "failed":
            raise NotReplaced(report["error"], report["folders"])
        return report

    async def _run(self, new: DevProcess, facts: dict[str, Any]) -> None:
        await new.order()
        if await new.expect("ready") is None:
            text = f"the {self.program} {describe_end(await new.wait())}"
            raise NotReplaced(text, facts["folders"])

    async def _start(self, listener: int | None) -> DevProcess:
        process = await DevProcess.start(
            self._nursery,
            self.program,
            self._screen,
            listener=listener,
            at_terminal=self._at_terminal,
        )
        self._all[process] = asyncio.create_task(self._follow(process))
        return process

    async def _follow(self, process: DevProcess) -> None:
        code = await process.wait()
        del self._all[process]
        if self._current is process:
            self._current = None
            self._on_end(self, code)


def describe_end(code: int) -> str:
    """Return an exit code in words."""
    return f"ended with exit code {code}" if code >= 0 else f"was killed by signal {-code}"
