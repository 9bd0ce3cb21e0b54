"""Which versions are installed, and whether they are among the tested ones."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from typing import Final

from convotic_celery.doctor.finding import Finding

__all__ = ["check_versions"]

#: Pinned to a tested series, because private parts of it are used.
_PINNED: Final = ("celery", "kombu", "flower")
_REQUIREMENT = re.compile(r"^([A-Za-z0-9_.-]+)\s*([^;\[]*)")


def check_versions(
    version_of: Callable[[str], str] = metadata.version,
    requirements: Iterable[str] | None = None,
) -> Iterator[Finding]:
    """Compare what is installed with what the package requires.

    Args:
        version_of: returns a distribution's version.
        requirements: of the package; None reads them.
    """
    if requirements is None:
        requirements = metadata.requires("convotic-celery") or ()
    bounds = {match[1]: match[2].strip() for r in requirements if (match := _REQUIREMENT.match(r))}
    shown = [f"Python {platform.python_version()}"]
    for name in ("convotic-celery", *_PINNED):
        try:
            version = version_of(name)
        except metadata.PackageNotFoundError:
            continue
        shown.append(f"{name} {version}")
        if name in _PINNED and not _is_within(version, bounds.get(name, "")):
            yield Finding(
                "versions",
                "warning",
                f"{name} {version} is installed; {bounds[name]} is tested",
                f"pip install '{name}{bounds[name]}'",
            )
    yield Finding("versions", "ok", ", ".join(shown))


def _is_within(version: str, bounds: str) -> bool:
    """Whether a version is within ``>=A,<B``; other bounds are assumed to hold."""
    number = _number(version)
    for bound in filter(None, map(str.strip, bounds.split(","))):
        if bound.startswith(">=") and number < _number(bound[2:]):
            return False
        if bound.startswith("<") and not bound.startswith("<=") and number >= _number(bound[1:]):
            return False
    return True


def _number(version: str) -> tuple[int, ...]:
    parts = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, parts[0].split("."))) if parts else ()
