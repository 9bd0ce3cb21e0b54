"""Pages for a person's browser on this machine: which requests they answer. Pure.

Any site that the person visits can send requests to this machine. Such a page reads nothing, since
another site's name that points here (DNS rebinding) is refused by its ``Host``; and it changes
nothing, since a request that changes something must have the page's own ``Origin``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["LOOPBACK_NAMES", "find_refusal"]

#: How a browser writes this machine.
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_READING = frozenset({"GET", "HEAD"})


def find_refusal(
    method: str, host: str, origin: str | None, *, names: Collection[str] = LOOPBACK_NAMES
) -> str | None:
    """Return why a request is refused, None if it may be answered.

    Args:
        method: GET and HEAD read, all others change something.
        host: Its header ``Host``, "" if it has none. The port does not matter: that of an SSH
            tunnel is another one.
        origin: Its header ``Origin``.
        names: The names by which the page may be asked for.
    """
    if _name_of(host) not in names:
        return "This page answers to the name of its own machine only."
    if method in _READING:
        return None
    if origin is None or _authority_of(origin) != host.lower():
        return "Only the page itself may change something: the request's Origin is another one."
    return None


def _name_of(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _authority_of(origin: str) -> str | None:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in {"http", "https"} else None
