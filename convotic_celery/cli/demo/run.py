"""The course of a demo: start, publish, watch, kill if asked to, read back, judge."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import click

from convotic_celery.cli.demo.chaos import split_into_portions
from convotic_celery.cli.demo.figures import Expected, Figures
from convotic_celery.cli.demo.scene import Scene
from convotic_celery.cli.demo.screen import Screen, print_figures
from convotic_celery.errors import ConvoticError
from convotic_order_processor.orders import load_orders

__all__ = ["DemoFailed", "DemoOptions", "run_demo"]

START_TIMEOUT_SECONDS = 60.0
STALL_SECONDS = 60.0
#: Reading the figures costs the store a millisecond or two.
LOOK_SECONDS = 0.1


class DemoFailed(ConvoticError):
    """The demo could not be brought to its end; the text says where it stopped."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What was asked for on the command line."""

    #: How many orders; None: all.
    orders: int | None = None
    as_json: bool = False
    chaos: bool = False
    flower: bool = False
    dashboard: bool = False


def run_demo(options: DemoOptions) -> int:
    """Run one demo to its end, print its figures, and return the exit code.

    Raises:
        DemoFailed: The worker ended, nothing moved for a minute, or a publish failed.
    """
    signal.signal(signal.SIGTERM, _leave)  # so that clean-up runs
    orders = list(load_orders())[: options.orders]
    with ExitStack() as stack:
        scene = stack.enter_context(Scene(chaos=options.chaos, warn=_warn))
        screen = Screen(len(orders), quiet=options.as_json)
        demo = Demo(scene, screen, chaos=options.chaos)
        demo.start_worker()
        pages = {}
        if options.dashboard:
            pages["Dashboard"] = scene.start_dashboard()
        if options.flower:
            pages["Flower"] = scene.start_flower()
        for name, address in pages.items():
            demo.wait_until(partial(scene.answers, address), what=name)
            click.echo(f"{name}: {address}", err=True)
        with screen:
            figures = demo.run(orders)
        print_figures(figures, as_json=options.as_json)
        mismatches = Expected.of(orders).find_mismatches(figures)
        for mismatch in mismatches:
            click.echo(f"convotic: wrong: {mismatch}", err=True)
        if pages:
            stay = " and ".join(f"{name} keeps running at {url}" for name, url in pages.items())
            _stay_until_interrupt(f"{stay}; Ctrl-C ends it.")
    return 1 if mismatches else 0


class Demo:
    """One run on a scene that is set."""

    def __init__(self, scene: Scene, screen: Screen, *, chaos: bool) -> None:
        self._scene = scene
        self._screen = screen
        self._chaos = chaos
        self._pause = threading.Event()

    def start_worker(self) -> None:
        """Start a worker and wait until its subscription exists.

        Raises:
            DemoFailed: It ended, or was not ready in time.
        """
        self._scene.start_worker()
        self.wait_until(self._scene.is_subscribed, what="the worker")

    def run(self, orders: Sequence[dict[str, Any]]) -> Figures:
        """Publish all orders, follow them to the store, and read the figures back."""
        started = time.monotonic()
        kills = 0
        for portion in split_into_portions(orders, chaos=self._chaos):
            self._scene.producer.publish(portion.orders)
            self._follow(portion.processed_before_next)
            if portion.kill_then:
                kills += 1
                self._screen.remark(f"SIGKILL to the worker, number {kills}; starting it again")
                self._scene.kill_worker()
                self._scene.start_worker()
        self._wait_for_confirmations(len(orders))
        seconds = time.monotonic() - started
        found = self._scene.read_figures()
        return Figures(
            published=self._scene.producer.confirmed,
            processed=found.processed,
            contacts=found.contacts,
            units=found.units,
            total=found.total,
            dead_lettered=self._scene.count_dead_letters(),
            seconds=seconds,
        )

    def _follow(self, target: int) -> None:
        """Wait until ``target`` orders are processed; return early if the rest is dead-lettered."""
        seen = (0, 0)
        moved_at = time.monotonic()
        while True:
            processed = self._scene.count_processed()
            now = (self._scene.producer.confirmed, processed)
            self._screen.update(published=now[0], processed=processed)
            self._scene.producer.raise_if_failed()
            if processed >= target:
                return
            if now != seen:
                seen, moved_at = now, time.monotonic()
            elif self._is_stuck(target, processed, time.monotonic() - moved_at):
                return
            self._check_worker()
            self._pause.wait(LOOK_SECONDS)

    def _is_stuck(self, target: int, processed: int, still_seconds: float) -> bool:
        if still_seconds < STALL_SECONDS:
            return False
        if processed + self._scene.count_dead_letters() >= target:
            return True  # the figures will tell
        raise DemoFailed(
            f"Nothing has moved for {STALL_SECONDS:g} s: {processed} of {target} orders processed. "
            f"The worker's last lines:\n{self._scene.worker_log()}"
        )

    def _wait_for_confirmations(self, count: int) -> None:
        """The last confirmations may come after their orders were processed."""
        self.wait_until(lambda: self._scene.producer.confirmed >= count, what="confirmations")

    def wait_until(self, condition: Callable[[], bool], *, what: str) -> None:
        """Wait for the start of something.

        Raises:
            DemoFailed: The worker ended meanwhile, or :data:`START_TIMEOUT_SECONDS` are over.
        """
        until = time.monotonic() + START_TIMEOUT_SECONDS
        while not condition():
            self._check_worker()
            if time.monotonic() > until:
                raise DemoFailed(
                    f"Waited {START_TIMEOUT_SECONDS:g} s for {what}. "
                    f"The worker's last lines:\n{self._scene.worker_log()}"
                )
            self._pause.wait(LOOK_SECONDS)

    def _check_worker(self) -> None:
        if not self._scene.worker_is_running:
            raise DemoFailed(f"The worker has ended. Its last lines:\n{self._scene.worker_log()}")


def _warn(text: str) -> None:
    click.echo(f"convotic: warning: {text}", err=True)


def _leave(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _stay_until_interrupt(text: str) -> None:
    try:
        click.echo(text, err=True)  # within: its reader may interrupt at once
        threading.Event().wait()
    except KeyboardInterrupt:
        return
