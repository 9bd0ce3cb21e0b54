"""What the children of ``convotic dev`` run: the programs that production runs."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import logging
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from convotic_celery.cli.faults import loaded_folders

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from convotic_celery.app import ConvoticApp
    from convotic_celery.cli.dev.control import Control, Orders
    from convotic_celery.settings import Settings

__all__ = ["PROGRAMS", "Loaded", "Program", "load"]

#: Limit of a run while somebody debugs it: the longest there is, in seconds.
_DEBUG_RUN_SECONDS = 86_400.0
#: How long the debugger's port may be another's.
_DEBUG_PORT_SECONDS = 5.0
#: How often it is looked whether VS Code is attached.
_LOOK_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Loaded:
    """The app of the modules, and what the parent wants to know of them."""

    app: ConvoticApp
    facts: dict[str, Any]


class Program(Protocol):
    """What a child runs."""

    def preload(self) -> None:
        """Import what the program needs, and nothing of the user's."""
        ...

    def run(self, app: ConvoticApp, orders: Orders, control: Control) -> int:
        """Run until SIGTERM; return the exit code."""
        ...


class _Worker:
    def preload(self) -> None:
        _import(
            "celery.app.control",
            "celery.app.events",
            "celery.apps.worker",
            "celery.backends.redis",
            "celery.bin.celery",
            "celery.worker.autoscale",
            "celery.worker.components",
            "celery.worker.consumer.delayed_delivery",
            "convotic_celery.app",
            "convotic_celery.documents.examples",
            "convotic_celery.documents.schemas",
            "convotic_celery.embedded.store",
            "convotic_celery.runtime.schedule.delayed_publisher",
            "convotic_celery.runtime.worker.consumer",
            "convotic_celery.runtime.worker.events",
            "convotic_celery.runtime.worker.lifespan_step",
            "convotic_celery.runtime.worker.logs",
            "convotic_celery.runtime.worker.strategy",
            "convotic_celery.runtime.worker.worker",
            "convotic_celery.telemetry.step",
            "convotic_emulator.daemon",
            "convotic_pubsub.kombu.transport",
            "convotic_pubsub.session",
        )

    def run(self, app: ConvoticApp, orders: Orders, control: Control) -> int:
        from celery.signals import worker_ready, worker_shutting_down

        from convotic_celery.runtime.celery_internals import install_warm_stop

        def say_ready(sender: Any, **_: object) -> None:
            # A reload ends it: that is no news, and what it still runs is said.
            install_warm_stop(sender.controller)
            control.report("ready")

        def say_stopping(**_: object) -> None:
            control.report("stopping")

        worker_ready.connect(say_ready)
        worker_shutting_down.connect(say_stopping)
        if orders.debug_port is not None:
            _allow_debuggers(orders.debug_port)
        # print() in a handler, and pdb's prompt, are no records of a log.
        app.conf.worker_redirect_stdouts = False
        level = app.settings.log_level
        name = f"dev{orders.number}@%h"
        app.worker_main(
            ["-q", "worker", "-n", name, "-l", level, "--without-mingle", "--without-gossip"]
        )
        return 0


class _Routes:
    def preload(self) -> None:
        _import(
            "convotic_celery.documents.examples",
            "convotic_celery.documents.schemas",
            "convotic_celery.embedded.store",
            "convotic_celery.routes.application",
            "convotic_celery.routes.server",
            "convotic_emulator.daemon",
            "convotic_pubsub.session",
            "uvicorn.lifespan.on",
        )

    def run(self, app: ConvoticApp, orders: Orders, control: Control) -> int:
        from convotic_celery.log import configure_logging
        from convotic_celery.routes import create_asgi_app

        configure_logging(app.settings)
        _serve(create_asgi_app(app=app), orders, control, stop_seconds=5)
        return 0


class _Dashboard:
    def preload(self) -> None:
        _import(
            "convotic_celery.dashboard.application",
            "convotic_celery.documents.examples",
            "convotic_celery.routes.server",
            "convotic_pubsub.session",
            "uvicorn.lifespan.on",
        )

    def run(self, app: ConvoticApp, orders: Orders, control: Control) -> int:
        from convotic_celery.dashboard import create_dashboard
        from convotic_celery.log import configure_logging

        configure_logging(app.settings)
        # The page asks every few seconds.
        logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
        _serve(create_dashboard(app=app), orders, control, stop_seconds=1)
        return 0


def _serve(api: Starlette, orders: Orders, control: Control, *, stop_seconds: int) -> None:
    """Serve on the socket that the parent keeps open over reloads."""
    from convotic_celery.routes.server import serve_on

    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # "started server process"
    listener = socket.socket(fileno=orders.listener)
    serve_on(
        listener,
        api,
        stop_seconds=stop_seconds,
        on_ready=lambda: control.report("ready"),
        on_stopping=lambda: control.report("stopping"),
    )


class _Beat:
    def preload(self) -> None:
        _import(
            "celery.apps.beat",
            "celery.bin.celery",
            "convotic_celery.app",
            "convotic_pubsub.session",
        )

    def run(self, app: ConvoticApp, orders: Orders, control: Control) -> int:  # noqa: ARG002 - as the others
        from celery.signals import beat_init

        def say_ready(**_: object) -> None:
            control.report("ready")

        beat_init.connect(say_ready)
        app.conf.worker_redirect_stdouts = False
        record = app.settings.data_dir / "celerybeat-schedule"
        record.parent.mkdir(parents=True, exist_ok=True)
        arguments = ["-q", "beat", "-l", app.settings.log_level, "--schedule", str(record)]
        app.start([*arguments, "--pidfile="])
        return 0


def _import(*names: str) -> None:
    for name in names:
        importlib.import_module(name)


def load(*, debug: bool) -> Loaded:
    """Load settings and modules; raises ConvoticError. Connects to nothing."""
    from convotic_celery.app import create_app
    from convotic_celery.documents.examples import build_example
    from convotic_celery.documents.schemas import build_schema
    from convotic_celery.settings import Settings

    settings = Settings()
    app = create_app(_without_deadlines(settings) if debug else settings)
    facts = {
        "handlers": [
            {
                "topic": each.topic,
                "queue": each.queue,
                "source": each.source,
                "example": json.dumps(build_example(build_schema(each.payload_type))),
            }
            for each in app.definitions
        ],
        "routes": [[each.method, each.path] for each in app.routes],
        "schedules": [[each.key, each.when, repr(each)] for each in app.schedules],
        "folders": loaded_folders(),
    }
    return Loaded(app, facts)


def _without_deadlines(settings: Settings) -> Settings:
    """Return settings with which no run is stopped while somebody debugs it.

    The ack deadline itself stays: subscriptions are created with it.
    """
    from convotic_celery.modules import load_modules

    options = dict(settings.handler_options)
    for module in load_modules(settings):
        for handler in module.handlers:
            given = options.get(handler.queue, {})
            options[handler.queue] = {**given, "max_lease_duration": _DEBUG_RUN_SECONDS}
    return settings.model_copy(update={"handler_options": options})


def _allow_debuggers(port: int) -> None:
    """Have breakpoints work: VS Code's, and breakpoint() with this terminal."""
    # It would show, once more, where the debugger has stopped the loop.
    logging.getLogger("convotic_celery.runtime.pool.watchdog").setLevel(logging.ERROR)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # frozen stdlib: a long warning
    if importlib.util.find_spec("debugpy") is not None:
        debugpy = importlib.import_module("debugpy")  # by name: it is no dependency here
        _wait_until_free(port)
        debugpy.listen(("127.0.0.1", port))
        tracing = sys.modules.get("pydevd_tracing")
        if tracing is not None:  # it would warn, at length, of pdb's tracing
            tracing.TracingFunctionHolder._warn = False
        threading.Thread(target=_choose_debugger, args=(debugpy,), daemon=True).start()


def _wait_until_free(port: int) -> None:
    """Return once the port can be listened on, or has been another's for too long.

    debugpy's listener is a process of its own, which outlives the worker before for a moment.
    """
    until = time.monotonic() + _DEBUG_PORT_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return
        threading.Event().wait(0.05)


def _choose_debugger(debugpy: Any) -> None:
    """Have breakpoint() stop in VS Code while that is attached, else in the terminal.

    debugpy ignores it while no debugger is attached, and would stop in a hook around both.
    """
    while True:
        is_attached = debugpy.is_client_connected()
        sys.breakpointhook = debugpy.breakpoint if is_attached else sys.__breakpointhook__
        threading.Event().wait(_LOOK_SECONDS)


PROGRAMS: dict[str, Program] = {
    "worker": _Worker(),
    "routes": _Routes(),
    "dashboard": _Dashboard(),
    "beat": _Beat(),
}
