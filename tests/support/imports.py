"""What tests import from folders of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

__all__ = ["forget_imports"]


def forget_imports(names: Iterable[str], folder: Path) -> None:
    """Forget those of the modules that are of a folder.

    No others: a second import of them would make their classes anew, and tests that come later have
    those of the first.
    """
    for name in names:
        module = sys.modules.get(name)
        if module is not None and _is_of(module, folder):
            del sys.modules[name]


def _is_of(module: ModuleType, folder: Path) -> bool:
    parts = vars(module)
    places = [parts.get("__file__"), *(parts.get("__path__") or ())]
    return any(Path(place).is_relative_to(folder) for place in places if isinstance(place, str))
