"""Where a project's folders are: found from its sub-folders too, as git finds ``.git``."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["find_project"]


def find_project(start: Path | None = None) -> Path:
    """Return the nearest folder with ``.convotic`` or with modules in ``modules/``.

    That is ``start`` (None: the working directory) or one above it; if there is none, ``start``.
    Above it, the home folder, other users' folders and those that others can write to don't count,
    and the search ends where a repository does.
    """
    here = (start or Path.cwd()).resolve()
    if _is_project(here):
        return here
    for folder, below in zip(here.parents, [here, *here.parents], strict=False):
        if (below / ".git").exists() or not _is_ours(folder):
            break
        if _is_project(folder):
            return folder
    return here


def _is_project(folder: Path) -> bool:
    if (folder / ".convotic").is_dir():
        return True
    modules = folder / "modules"
    try:
        return any(modules.glob("*.py")) or any(modules.glob("*/__init__.py"))
    except OSError:
        return False


def _is_ours(folder: Path) -> bool:
    if folder == Path.home().resolve() or folder == Path(folder.anchor):
        return False
    try:
        status = folder.stat()
    except OSError:
        return False
    return status.st_uid == os.geteuid() and not status.st_mode & stat.S_IWOTH
