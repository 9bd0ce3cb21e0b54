"""Write ``context/_sync`` from ``context/_async``: the same services without ``await``.

Usage: ``python scripts/unasync.py`` writes the files, ``--check`` only says if they are current.
"""

# ruff: noqa: INP001 - a program, not a package

from __future__ import annotations

import re
import sys
from pathlib import Path

CONTEXT = Path(__file__).resolve().parent.parent / "convotic_celery" / "context"
SOURCE = CONTEXT / "_async"
TARGET = CONTEXT / "_sync"

#: In this order; each is a regular expression and what takes its place.
REPLACEMENTS = (
    (r"an ``async def`` handler", "a plain ``def`` handler"),
    (r"for ``async def`` handlers", "for plain ``def`` handlers"),
    (r"; ``_sync`` is generated from this package", ""),
    (r"\basync def\b", "def"),
    (r"\bawait ", ""),
    (r"\bAsync([A-Z])", r"Sync\1"),
    (r"\bConvoticContext\b", "SyncConvoticContext"),
    (r"\basync_(?=contacts|conversations|messages|pubsub|schedule|storage|workflows)", "sync_"),
    (r"\b(publish|publish_many)_async\b", r"\1_sync"),
    (r"\b_async\b", "_sync"),
)
NOTICE = "# Generated from {source} by scripts/unasync.py; edit that.\n\n"


def convert(text: str, source: str) -> str:
    """Return the plain twin of an async module's text."""
    for pattern, replacement in REPLACEMENTS:
        text = re.sub(pattern, replacement, text)
    docstring_end = text.index('"""', 3) + len('"""\n')
    body = text[docstring_end:]
    converted = text[:docstring_end] + "\n" + NOTICE.format(source=source) + body.lstrip("\n")
    return converted.rstrip("\n") + "\n"


def outdated() -> dict[Path, str]:
    """Return the files that differ from what they should be, with what they should be."""
    wanted = {
        TARGET / path.name: convert(path.read_text(), f"_async/{path.name}")
        for path in sorted(SOURCE.glob("*.py"))
    }
    return {
        path: text for path, text in wanted.items() if not path.exists() or path.read_text() != text
    }


def main(arguments: list[str]) -> int:
    """Write the files, or with ``--check`` return 1 if one is not current."""
    files = outdated()
    for path, text in files.items():
        if "--check" in arguments:
            sys.stderr.write(f"{path} is not current; run python scripts/unasync.py\n")
        else:
            path.write_text(text)
    return 1 if files and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
