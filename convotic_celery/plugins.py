"""What a deployment adds from outside its modules: finds what settings name.

CONVOTIC_SERVICES: a function that plugs in services. CONVOTIC_MIDDLEWARE: around all handlers and
routes. CONVOTIC_DEAD_LETTER_HOOK: called about groups of dead letters.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from convotic_celery.errors import ConfigurationError
from convotic_celery.sdk.middleware import RouteMiddleware, WorkerMiddleware

if TYPE_CHECKING:
    from convotic_celery.context.services import Services, ServicesHook

__all__ = ["find_dead_letter_hook", "find_middleware", "find_services_hook", "plug_in_services"]


def find_services_hook(text: str) -> ServicesHook:
    """Return the function that ``package.file:function`` names.

    Raises:
        ConfigurationError: There is none; what its import raises by itself passes through.
    """
    name, _, attribute = text.partition(":")
    hook: ServicesHook | None = _find("CONVOTIC_SERVICES", text)
    if not callable(hook):
        raise ConfigurationError(f"CONVOTIC_SERVICES={text}: {name} has no function {attribute!r}.")
    return hook


def find_dead_letter_hook(text: str) -> Callable[[Any], object]:
    """Return the function that ``package.file:function`` names.

    Raises:
        ConfigurationError: There is none; what its import raises by itself passes through.
    """
    hook: Callable[[Any], object] | None = _find("CONVOTIC_DEAD_LETTER_HOOK", text)
    if not callable(hook):
        raise ConfigurationError(f"CONVOTIC_DEAD_LETTER_HOOK={text}: there is no such function.")
    return hook


def find_middleware(texts: Sequence[str]) -> list[WorkerMiddleware | RouteMiddleware]:
    """Return what each ``package.file:name`` names: middleware, or a class of it, made here.

    Raises:
        ConfigurationError: One names neither; what its import raises by itself passes through.
    """
    found = []
    for text in texts:
        each = _find("CONVOTIC_MIDDLEWARE", text)
        if isinstance(each, type):
            each = each()
        if not isinstance(each, WorkerMiddleware | RouteMiddleware):
            raise ConfigurationError(
                f"CONVOTIC_MIDDLEWARE: {text} is no WorkerMiddleware or RouteMiddleware."
            )
        found.append(each)
    return found


def _find(variable: str, text: str) -> Any:
    """Return what ``package.file:name`` names; None if the file has no such name."""
    name, _, attribute = text.partition(":")
    try:
        python_module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # something that it imports is missing
        raise ConfigurationError(
            f"{variable}={text}: there is no Python module {error.name!r}."
        ) from None
    return getattr(python_module, attribute, None)


def plug_in_services(services: Services, *hooks: str | ServicesHook | None) -> None:
    """Call the hooks that there are, in order, each with the services.

    Raises:
        ConfigurationError: A hook can't be found, or returns something: it changes what it is
            given, and a returned object would be lost silently.
    """
    for given in hooks:
        if given is None:
            continue
        hook = find_services_hook(given) if isinstance(given, str) else given
        returned: object = hook(services)
        if returned is not None and returned is not services:
            raise ConfigurationError(
                f"The services hook {getattr(hook, '__qualname__', hook)!r} returned "
                f"{type(returned).__name__}: change the services it is given, and return nothing."
            )
