"""What a test imports from a folder of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

__all__ = ["forget_imports"]


def forget_imports(folder: Path) -> None:
    """Forget the modules of a folder.

    Nothing else that was imported meanwhile: a second import of it would make its classes anew, and
    tests that come later have those of the first.
    """
    for name, module in list(sys.modules.items()):
        if _is_of(module, folder):
            del sys.modules[name]


def _is_of(module: ModuleType, folder: Path) -> bool:
    if type(module) is not ModuleType:  # lazy ones are loaded by a look at them
        return False
    parts = vars(module)
    places = [parts.get("__file__"), *(parts.get("__path__") or ())]
    return any(Path(place).is_relative_to(folder) for place in places if isinstance(place, str))
