"""An error as its author wants to read it: from their line on, the framework's frames folded."""

from __future__ import annotations

import re
import sysconfig
import traceback
from itertools import groupby
from pathlib import Path

__all__ = ["FRAMEWORK", "describe_error", "fold_traceback"]

_FRAME = re.compile(r'^(\s*)File "(.+?)", line \d+, in ')

#: Packages whose code stands between a message and its handler: the installed ones, and Python's.
_INSTALLED = ("billiard", "celery", "convotic_celery", "convotic_pubsub", "kombu", "vine")
_STANDARD = ("asyncio", "concurrent", "contextlib", "threading")
FRAMEWORK = frozenset({*_INSTALLED, *_STANDARD})

_PATHS = sysconfig.get_paths()
#: Beginnings of their files' names.
_OURS = (
    f"{Path(__file__).parent.parent}/",
    *(f"{_PATHS['purelib']}/{name}/" for name in _INSTALLED),
    *(f"{_PATHS['stdlib']}/{name}{end}" for name in _STANDARD for end in ("/", ".py")),
)
#: In a checkout the transport lies elsewhere.
_OUR_PARTS = ("/convotic_pubsub/", "<frozen runpy>")


def describe_error(error: BaseException, *, whole: bool = False) -> str:
    """Return the error with its causes and tracebacks; ``whole`` folds nothing."""
    text = "".join(traceback.format_exception(error)).rstrip("\n")
    return text if whole else fold_traceback(text)


def fold_traceback(text: str) -> str:
    """Return a traceback's text without the framework's frames before the author's first.

    Those behind it are one line. One with no frame of an author's is left as it is.
    """
    parts = _split(text.splitlines())
    if not any(is_ours is False for is_ours, _ in parts):
        return text
    lines: list[str] = []
    has_begun = False
    for is_ours, group in groupby(parts, key=lambda part: part[0]):
        frames = [part for _, part in group]
        if is_ours is None:  # the head or the foot of one of several tracebacks
            has_begun = False
        if is_ours is not True:
            lines += [line for frame in frames for line in frame]
            has_begun = is_ours is False
        elif has_begun:
            indent = frames[0][0][: len(frames[0][0]) - len(frames[0][0].lstrip())]
            count = f"{len(frames)} frames" if len(frames) > 1 else "1 frame"
            lines.append(f"{indent}... {count} of the framework")
    return "\n".join(lines)


def _split(lines: list[str]) -> list[tuple[bool | None, list[str]]]:
    """Return frames, with whether each is the framework's, and the lines between (None)."""
    parts: list[tuple[bool | None, list[str]]] = []
    indent = ""
    in_frame = False
    for line in lines:
        found = _FRAME.match(line)
        if found is not None:
            indent, in_frame = found[1], True
            parts.append((_is_ours(found[2]), [line]))
        elif in_frame and line.startswith(f"{indent}  "):
            parts[-1][1].append(line)
        else:
            in_frame = False
            parts.append((None, [line]))
    return parts


def _is_ours(file: str) -> bool:
    return file.startswith(_OURS) or any(part in file for part in _OUR_PARTS)
