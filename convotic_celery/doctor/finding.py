"""What a check says. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["LEVELS", "Finding", "Level", "worst"]

#: ``error``: messages wait, or can be lost. ``warning``: they can be, should something else happen.
#: ``note``: could not be looked at, or good to know.
Level: TypeAlias = Literal["ok", "note", "warning", "error"]
LEVELS: Final[tuple[Level, ...]] = ("ok", "note", "warning", "error")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found."""

    #: Which check found it.
    check: str
    level: Level
    #: What it is, in one sentence.
    text: str
    #: What to do about it; "" for ``ok``.
    remedy: str = ""


def worst(findings: Iterable[Finding]) -> Level:
    """Return the highest level."""
    return max((each.level for each in findings), key=LEVELS.index, default="ok")
