"""Which page shows a data folder in a browser, for pages that link to it.

A file in the folder names the page's address and process. It counts only while that process lives,
so that a killed one leaves no dead link.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["announce_page", "find_page"]

_FILE = "dashboard.json"


@contextlib.contextmanager
def announce_page(folder: Path, url: str) -> Iterator[None]:
    """Name a page of this process as the folder's, for the block; the last one counts."""
    file = folder / _FILE
    record = {"url": url, "process": os.getpid()}
    temporary = folder / f"{_FILE}.{os.getpid()}"
    temporary.write_text(json.dumps(record))
    temporary.replace(file)
    try:
        yield
    finally:
        if _read(file) == record:
            file.unlink(missing_ok=True)


def find_page(folder: Path) -> str | None:
    """Return the address of the folder's page, None if none is running."""
    record = _read(folder / _FILE)
    url, process = record.get("url"), record.get("process")
    if not isinstance(url, str) or not isinstance(process, int):
        return None
    try:
        os.kill(process, 0)
    except OSError:
        return None
    return url


def _read(file: Path) -> dict[str, object]:
    try:
        record = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
