"""How old something is, as a table shows it: :func:`show_age`."""

from __future__ import annotations

__all__ = ["show_age"]


def show_age(seconds: float) -> str:
    """Return whole units of the largest that fits, ``5 min``; of what is to come, ``0 s``."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0, seconds) // 1:.0f} s"
