"""Watches for saved Python files: :class:`Watch`."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from watchfiles import Change, DefaultFilter, awatch

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Watch"]

#: An editor's save is several changes; reloading begins once there was none for this long.
_QUIET_MS, _LONGEST_MS = 30, 400


class _Sources(DefaultFilter):
    """Python files that have no hidden name; what the default filter ignores is ignored."""

    def __init__(self, roots: Iterable[Path]) -> None:
        super().__init__()
        self._roots = {str(root) for root in roots}

    def __call__(self, change: Change, path: str) -> bool:
        name = Path(path).name
        is_source = name.endswith(".py") and not name.startswith(".")
        return (is_source and super().__call__(change, path)) or path in self._roots


class Watch:
    """Notes the files that are saved in the modules' folder and where loaded code lies.

    Args:
        roots: Watched with their subfolders; a missing one, once it exists.
        here: The working directory: only its own files, since it may contain a virtual environment.
    """

    def __init__(self, roots: Iterable[Path], here: Path) -> None:
        self._roots = tuple(roots)
        self._here = here
        self._filter = _Sources(self._roots)
        self._changed: set[Path] = set()
        self._event = asyncio.Event()
        self._folders: set[Path] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begin to watch."""
        self._run("here", [self._here], recursive=False)
        self._watch_roots()

    async def stop(self) -> None:
        """Stop watching."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def add(self, folders: Iterable[str]) -> None:
        """Watch further folders, without their subfolders."""
        found = {Path(folder) for folder in folders}
        new = {
            folder
            for folder in found - self._folders - {self._here}
            if folder.is_dir() and not any(folder.is_relative_to(root) for root in self._roots)
        }
        if new:
            self._folders |= new
            self._run(f"folders {len(self._folders)}", sorted(new), recursive=False)

    async def wait(self) -> set[Path]:
        """Return the files that were saved since the last call, once there are some."""
        await self._event.wait()
        self._event.clear()
        changed, self._changed = self._changed, set()
        return changed

    def nudge(self) -> None:
        """Have :meth:`wait` return, with no file."""
        self._event.set()

    def _watch_roots(self) -> None:
        for root in self._roots:
            if root.is_dir():
                self._run(str(root), [root], recursive=True)

    def _run(self, name: str, paths: list[Path], *, recursive: bool) -> None:
        task = self._tasks.get(name)
        if task is None or task.done():
            self._tasks[name] = asyncio.create_task(self._watch(paths, recursive=recursive))

    async def _watch(self, paths: list[Path], *, recursive: bool) -> None:
        watching = awatch(
            *paths,
            watch_filter=self._filter,
            recursive=recursive,
            debounce=_LONGEST_MS,
            step=_QUIET_MS,
        )
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            async for changes in watching:
                self._watch_roots()
                self._changed |= {Path(path) for _, path in changes}
                self._event.set()
