"""The message types of ``google.pubsub.v1``, without Google's clients.

``google.pubsub_v1.types`` is a part of google-cloud-pubsub, and a package's own code runs before
its parts: that imports the generated clients, and with them some 400 modules that neither our
transport nor our emulator uses. It takes 0.25 of the 0.3 seconds that the types take in all, in
each process. So the package is registered here with its code still to run. It runs when somebody
asks for what it defines (``google.cloud.pubsub_v1`` does), and then nothing shows that it was not
there before.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.pubsub_v1.types import pubsub, schema

__all__ = ["pubsub", "schema"]

_NAME = "google.pubsub_v1"
_lock = threading.Lock()


class _Postponed(ModuleType):
    """A package whose parts can be imported, and whose own code runs when it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)  # a tool that looks at all modules
        if name != "__all__" and importlib.util.find_spec(f"{_NAME}.{name}"):
            return importlib.import_module(f"{_NAME}.{name}")  # its parts import each other so
        return getattr(_run(self), name)

    def __dir__(self) -> list[str]:
        return dir(_run(self))


def _run(postponed: ModuleType) -> ModuleType:
    """Import the package, as if it had not been; its parts stay those that there are."""
    with _lock:  # not around the import, which has locks of its own
        if sys.modules.get(_NAME) is postponed:
            del sys.modules[_NAME]
    package = importlib.import_module(_NAME)
    for name, module in list(sys.modules.items()):
        parent, _, child = name.rpartition(".")
        if parent == _NAME:
            setattr(package, child, module)
    return package


def _postpone() -> None:
    spec = None if _NAME in sys.modules else importlib.util.find_spec(_NAME)
    if spec is not None and spec.loader is not None:
        package = _Postponed(_NAME)
        package.__spec__, package.__loader__, package.__file__ = spec, spec.loader, spec.origin
        package.__package__ = _NAME
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules[_NAME] = package
        parent, _, child = _NAME.rpartition(".")
        setattr(sys.modules[parent], child, package)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = globals()[name] = importlib.import_module(f"{_NAME}.types.{name}")
    return module


_postpone()
