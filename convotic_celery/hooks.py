"""Where a team plugs in services of its own: finds and calls what CONVOTIC_SERVICES names."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from convotic_celery.errors import ConfigurationError

if TYPE_CHECKING:
    from convotic_celery.context.services import Services, ServicesHook

__all__ = ["find_services_hook", "plug_in_services"]


def find_services_hook(text: str) -> ServicesHook:
    """Return the function that ``package.file:function`` names.

    Raises:
        ConfigurationError: There is none; what its import raises by itself passes through.
    """
    name, _, attribute = text.partition(":")
    try:
        python_module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # something that it imports is missing
        raise ConfigurationError(
            f"CONVOTIC_SERVICES={text}: there is no Python module {error.name!r}."
        ) from None
    hook: ServicesHook | None = getattr(python_module, attribute, None)
    if not callable(hook):
        raise ConfigurationError(f"CONVOTIC_SERVICES={text}: {name} has no function {attribute!r}.")
    return hook


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
