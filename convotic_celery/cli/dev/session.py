"""One ``convotic dev``, from its start to Ctrl-C: what runs when, and what is said about it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convotic_celery.cli.dev.nursery import Nursery
from convotic_celery.cli.dev.part import NotReplaced, Part, describe_end
from convotic_celery.cli.dev.servers import EmbeddedServers
from convotic_celery.cli.dev.summary import list_handlers, list_links
from convotic_celery.cli.dev.watch import Watch
from convotic_celery.cli.listening import listen, url_of
from convotic_celery.errors import ConfigurationError
from convotic_local import FileLock, prepare_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convotic_celery.cli.dev.screen import Screen
    from convotic_celery.settings import Settings

__all__ = ["DevOptions", "Session"]

_PORTS_TRIED = 20
#: After a program has ended by itself; doubled each time, up to the last.
_FIRST_DELAY_SECONDS, _LAST_DELAY_SECONDS = 1.0, 30.0
#: A program that has run this long was well.
_WELL_AFTER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class DevOptions:
    """The command line of ``convotic dev``."""

    host: str
    port: int
    dashboard_port: int
    #: None: no debugging.
    debug_port: int | None = None
    watched: tuple[Path, ...] = ()


class Session:
    """Runs the parts until SIGINT or SIGTERM."""

    def __init__(self, settings: Settings, options: DevOptions, screen: Screen) -> None:
        self._settings = settings
        self._options = options
        self._screen = screen
        self._data_dir = settings.data_dir.expanduser().resolve()
        debugs = options.debug_port is not None
        self._nursery = Nursery(screen, at_terminal=debugs)
        make_part = partial(Part, nursery=self._nursery, screen=screen, on_end=self._restart_later)
        self._worker = make_part("worker", at_terminal=debugs)
        self._routes = make_part("routes")
        self._dashboard = make_part("dashboard")
        self._beat = make_part("beat", overlaps=False)
        self._servers = EmbeddedServers(settings)
        self._watch = Watch([settings.modules_dir.resolve(), *options.watched], Path.cwd())
        self._listener: socket.socket | None = None
        self._dashboard_listener: socket.socket | None = None
        self._schedules: list[Any] = []
        self._handlers: list[Any] | None = None
        self._links: list[str] = []
        self._delay = _FIRST_DELAY_SECONDS
        self._signals = 0
        self._main: asyncio.Task[None] | None = None

    @property
    def _parts(self) -> tuple[Part, ...]:
        return self._beat, self._routes, self._dashboard, self._worker

    async def run(self) -> int:
        """Return 0 once everything has ended, after a signal.

        Raises:
            ConfigurationError: It runs already for this data folder, or the embedded servers can't.
        """
        prepare_folder(self._data_dir)
        lock = FileLock(self._data_dir / "dev.lock")
        if not lock.take():
            raise ConfigurationError(
                f"`convotic dev` runs already for {self._data_dir}; end that one first, or set "
                "CONVOTIC_DATA_DIR to another folder."
            )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop)
        self._main = asyncio.create_task(self._serve())
        try:
            await self._main
        except asyncio.CancelledError:
            if not self._signals:
                raise
        finally:
            await self._end()
            lock.release()
        return 0

    async def _serve(self) -> None:
        """Load the code, and load it again whenever it is saved."""
        self._screen.say(f"{Path.cwd()}, data in {self._data_dir}; Ctrl-C stops everything")
        self._watch.start()
        self._dashboard_listener = listen(
            self._options.host, self._options.dashboard_port, tries=_PORTS_TRIED
        )
        await self._nursery.start()  # it imports while the servers start
        await self._servers.start()
        keeping = asyncio.create_task(self._servers.keep())
        try:
            await self._reload_on_save()
        finally:
            keeping.cancel()

    async def _reload_on_save(self) -> None:
        changed: set[Path] = set()
        while True:
            reload = asyncio.create_task(self._reload(changed))
            saved = asyncio.create_task(self._watch.wait())
            try:
                await asyncio.wait({reload, saved}, return_when=asyncio.FIRST_COMPLETED)
                if reload.done():
                    reload.result()
                changed = await saved
            finally:
                for task in (reload, saved):
                    task.cancel()
                await asyncio.wait({reload, saved})

    async def _reload(self, changed: set[Path]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            facts = await self._worker.replace(debug_port=self._options.debug_port)
            self._watch.add(facts["folders"])
            await self._replace_routes(facts["routes"])
            await self._replace_beat(facts["schedules"])
            self._say_done(facts, changed, loop.time() - began)
            # Last: nothing waits for it, and until then the old one answers.
            assert self._dashboard_listener is not None
            await self._dashboard.replace(listener=self._dashboard_listener.fileno())
        except NotReplaced as error:
            self._watch.add(error.folders)
            self._explain(error)
            return
        loop.call_later(_WELL_AFTER_SECONDS, self._forget_delay)

    def _say_done(self, facts: Mapping[str, Any], changed: set[Path], seconds: float) -> None:
        handlers, self._handlers = self._handlers, facts["handlers"]
        if handlers is None:
            self._screen.say(f"✓ ready in {seconds:.1f} s", colour="green")
        else:
            names = ", ".join(sorted(map(_shorten, changed))) or "what had ended"
            self._screen.say(f"✓ reloaded {names} in {seconds:.2f} s", colour="green")
        self._say_links(facts)
        if _name_all(facts["handlers"]) != _name_all(handlers):
            self._screen.say("\n".join(list_handlers(facts["handlers"])))

    def _say_links(self, facts: Mapping[str, Any]) -> None:
        """Say what can be clicked or typed, as far as it is new."""
        routes = self._listener if facts["routes"] else None
        assert self._dashboard_listener is not None
        links = list_links(
            facts,
            routes=url_of(routes) if routes is not None else None,
            dashboard=url_of(self._dashboard_listener),
            emulator=self._servers.emulator,
            debug_port=self._options.debug_port,
        )
        self._screen.say("\n".join(link for link in links if link not in self._links))
        self._links = links

    async def _replace_routes(self, routes: list[Any]) -> None:
        if not routes:
            await self._routes.end()
            return
        if self._listener is None:
            self._listener = listen(self._options.host, self._options.port, tries=_PORTS_TRIED)
        await self._routes.replace(listener=self._listener.fileno())

    async def _replace_beat(self, schedules: list[Any]) -> None:
        if schedules and (not self._beat.runs or schedules != self._schedules):
            await self._beat.end()
            await self._beat.replace()
        elif not schedules:
            await self._beat.end()
        self._schedules = schedules

    def _restart_later(self, part: Part, code: int) -> None:
        """Start a program again that has ended by itself."""
        delay, self._delay = self._delay, min(_LAST_DELAY_SECONDS, 2 * self._delay)
        self._screen.fail(
            f"the {part.program} {describe_end(code)}; starting it again in {delay:g} s"
        )
        asyncio.get_running_loop().call_later(delay, self._watch.nudge)

    def _forget_delay(self) -> None:
        self._delay = _FIRST_DELAY_SECONDS

    def _explain(self, error: NotReplaced) -> None:
        self._screen.fail(f"✗ {error}")
        what = "the old processes go on" if self._worker.runs else "nothing runs"
        self._screen.say(f"{what}; save a file to try again", colour="yellow")

    def _stop(self) -> None:
        """Handle a signal: the first one ends everything in order, the next one at once."""
        self._signals += 1
        if self._signals == 1:
            assert self._main is not None
            self._screen.say("stopping; press Ctrl-C again not to wait for running handlers")
            self._main.cancel()
            return
        for part in self._parts:
            part.kill()

    async def _end(self) -> None:
        await self._watch.stop()
        await asyncio.gather(*(part.close() for part in self._parts))
        await self._nursery.close()
        await self._servers.stop()
        for listener in (self._listener, self._dashboard_listener):
            if listener is not None:
                listener.close()
        self._screen.say("everything has stopped")


def _name_all(handlers: list[Any] | None) -> list[str] | None:
    return None if handlers is None else [each["queue"] for each in handlers]


def _shorten(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
