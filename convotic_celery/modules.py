"""Loads modules: finds them, collects their handlers, applies the settings, checks the whole.

Nothing is started. Which folders, names and entry points are searched is in ``discovery.py``.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from convotic_celery.discovery import explain_errors, find_modules, tolerating
from convotic_celery.errors import ConfigurationError, DuplicateHandler, DuplicateRoute, ModuleError
from convotic_celery.plugins import find_middleware
from convotic_celery.sdk.middleware import RouteMiddleware, WorkerMiddleware
from convotic_celery.sdk.option_errors import describe_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from convotic_celery.discovery import OnFault
    from convotic_celery.sdk.handler import HandlerDefinition
    from convotic_celery.sdk.module import ConvoticModule
    from convotic_celery.sdk.route import RouteDefinition
    from convotic_celery.sdk.schedule import ScheduleDefinition
    from convotic_celery.settings import Settings

__all__ = ["LoadedModule", "apply_settings", "load_modules", "surround_routes"]

logger = getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModule:
    """One module, ready to be run."""

    name: str
    version: str
    #: Where it was found: a file, a dotted name or an entry point.
    origin: str
    #: With the settings' defaults, ``handler_options`` and ``middleware`` applied.
    handlers: tuple[HandlerDefinition, ...]
    routes: tuple[RouteDefinition, ...] = ()
    schedules: tuple[ScheduleDefinition, ...] = ()


def load_modules(settings: Settings, *, on_fault: OnFault | None = None) -> list[LoadedModule]:
    """Import all modules and return them with their handlers, in a stable order.

    With ``settings.modules`` only those; else the packages and files of ``settings.modules_dir``,
    by name, and then the entry points. May be called again: Python imports each module once.

    Raises ModuleError (ModuleNotFound, DuplicateHandler, HandlerSignatureError) that names the file
    and the cause, and ConfigurationError for ``handler_options`` that fit no handler and for a
    ``modules_dir`` that was given and does not exist. With ``on_fault`` each error is given to
    that, and everything else is loaded.
    """
    if "modules_dir" in settings.model_fields_set and not settings.modules_dir.is_dir():
        raise ConfigurationError(
            f"CONVOTIC_MODULES_DIR: there is no folder {settings.modules_dir.resolve()}."
        )
    found = find_modules(
        settings.modules_dir,
        settings.modules,
        django=settings.django_settings_module is not None,
        on_fault=on_fault,
    )
    loaded = []
    for module, origin in _unique(found, on_fault):
        with tolerating(on_fault):
            loaded.append(_complete(settings, _collect(module, origin)))
    handlers = [handler for module in loaded for handler in module.handlers]
    with tolerating(on_fault):
        _refuse_duplicates(handlers)
    with tolerating(on_fault):
        _refuse_duplicate_routes([route for module in loaded for route in module.routes])
    with tolerating(on_fault):
        _refuse_unused_options(settings, handlers)
    return loaded


def _unique(
    found: Iterable[tuple[ConvoticModule, str]], on_fault: OnFault | None
) -> Iterator[tuple[ConvoticModule, str]]:
    """Yield each module once, however many ways lead to it; two of one name are an error."""
    seen: dict[str, tuple[ConvoticModule, str]] = {}
    for module, origin in found:
        known = seen.setdefault(module.name, (module, origin))
        with tolerating(on_fault):
            if known[0] is not module:
                raise ModuleError(
                    f"{origin}: the module name {module.name!r} is taken by {known[1]}."
                )
            if known[1] is origin:
                yield module, origin


def _complete(settings: Settings, module: LoadedModule) -> LoadedModule:
    return replace(
        module,
        handlers=tuple(apply_settings(settings, module.handlers)),
        routes=tuple(surround_routes(settings, module.routes)),
    )


def _collect(module: ConvoticModule, origin: str) -> LoadedModule:
    with explain_errors(origin, Path(origin)):
        sdk = module.collect()
    if not (sdk.handlers or sdk.routes or sdk.schedules):
        logger.warning("Module %s (%s) registers no handlers.", module.name, origin)
    return LoadedModule(
        module.name, module.version, origin, sdk.handlers, sdk.routes, sdk.schedules
    )


def apply_settings(
    settings: Settings, handlers: Iterable[HandlerDefinition]
) -> list[HandlerDefinition]:
    """Return the handlers with the settings' defaults, ``handler_options`` and middleware.

    Raises ConfigurationError for options or middleware that are wrong, and ModuleError for
    middleware that can't be around a handler.
    """
    found = find_middleware([*_list_tracing(settings), *settings.middleware])
    around = tuple(each for each in found if isinstance(each, WorkerMiddleware))
    return [
        _apply(settings, replace(handler, middleware=around + handler.middleware))
        for handler in handlers
    ]


def surround_routes(
    settings: Settings, routes: Iterable[RouteDefinition]
) -> Iterator[RouteDefinition]:
    """Yield the routes inside the settings' middleware; raises as :func:`apply_settings` does."""
    found = find_middleware([*_list_tracing(settings), *settings.middleware])
    around = tuple(each for each in found if isinstance(each, RouteMiddleware))
    for route in routes:
        surrounded = replace(route, middleware=around + route.middleware)
        surrounded.check()
        yield surrounded


def _list_tracing(settings: Settings) -> list[str]:
    """Return what traces runs and calls, if that is wanted: by name, since it is a room above."""
    room = "convotic_celery.telemetry.tracing"
    return [f"{room}:TraceRuns", f"{room}:TraceRoutes"] if settings.tracing else []


def _apply(settings: Settings, handler: HandlerDefinition) -> HandlerDefinition:
    """Return the handler with the settings' defaults below its options and overrides above them."""
    defaults = {
        "deadline_grace": settings.deadline_grace,
        "max_worker_losses": settings.max_worker_losses,
    }
    given = {
        name: v for name, v in defaults.items() if name not in handler.options.model_fields_set
    }
    by_topic = settings.handler_options.get(handler.topic, {})
    by_queue = settings.handler_options.get(handler.queue, {})
    try:
        options = handler.options.replace(**given).replace(**by_topic).replace(**by_queue)
    except ValidationError as error:
        raise ConfigurationError(
            f"CONVOTIC_HANDLER_OPTIONS for {handler.queue}: {describe_options(error)}"
        ) from None
    return handler.with_options(options)


def _refuse_duplicates(handlers: list[HandlerDefinition]) -> None:
    key_of: dict[str, Callable[[HandlerDefinition], str]] = {
        "queue": lambda handler: handler.queue,
        "subscription": lambda handler: handler.subscription,
    }
    for kind, key in key_of.items():
        seen: dict[str, HandlerDefinition] = {}
        for handler in handlers:
            other = seen.setdefault(key(handler), handler)
            if other is not handler:
                raise DuplicateHandler(
                    f"{handler.source} (module {handler.module}): the {kind} {key(handler)!r} "
                    f"belongs to the handler at {other.source} (module {other.module})."
                )


def _refuse_duplicate_routes(routes: Iterable[RouteDefinition]) -> None:
    seen: dict[tuple[str, str], RouteDefinition] = {}
    for route in routes:
        other = seen.setdefault((route.method, route.shape), route)
        if other is not route:
            raise DuplicateRoute(
                f"{route.source} (module {route.module}): {route.name} is taken by {other.name} "
                f"at {other.source} (module {other.module})."
            )


def _refuse_unused_options(settings: Settings, handlers: list[HandlerDefinition]) -> None:
    known = {name for handler in handlers for name in (handler.topic, handler.queue)}
    for name in settings.handler_options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(
                f"CONVOTIC_HANDLER_OPTIONS names {name!r}, which is no handler's topic or queue."
                f"{hint}"
            )
