"""What a person types to find dead letters: words, and conditions ``name=value``."""

from __future__ import annotations

import re
import shlex
from typing import Any

from convotic_celery.dead_letters import Match

__all__ = ["asks_for_payload", "parse_search"]

_AGE = re.compile(r"(\d+(?:\.\d+)?)(s|m|min|h|d)?")
_SECONDS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_PLAIN = ("handler", "reason", "error", "group")
_AGES = {"older": "older_than", "newer": "newer_than"}


def parse_search(text: str, **given: Any) -> Match:
    """Return what is meant.

    ``OutOfStock`` and other words are looked for in the error's text and stack. ``error=``,
    ``reason=``, ``handler=`` and ``group=`` ask for exactly that, ``attributes.NAME=`` for an
    attribute, ``data.PATH=`` for a value in the payload, ``older=1h`` and ``newer=30m`` for an age,
    ``id=`` for one message. ``given`` is what the page adds. Raises ValueError.
    """
    found: dict[str, Any] = {"attributes": {}, "payload": {}}
    words = []
    try:
        parts = shlex.split(text)
    except ValueError:
        raise ValueError("A quotation mark is missing.") from None
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or not _take(found, name, value):
            words.append(part)
    if words:
        found["text"] = " ".join(words)
    return Match(**found | given)


def asks_for_payload(match: Match) -> bool:
    """Whether the answer reveals something of what messages contain."""
    return bool(match.attributes or match.payload)


def _take(found: dict[str, Any], name: str, value: str) -> bool:
    """Note one condition; False if it is none."""
    if name in _PLAIN:
        found[name] = value
    elif name == "id":
        found["ids"] = (*found.get("ids", ()), value)
    elif name in _AGES:
        age = _AGE.fullmatch(value)
        if age is None:
            raise ValueError(f"{name}={value}: an age is a number with s, m, h or d, e.g. 30m.")
        found[_AGES[name]] = float(age[1]) * _SECONDS[age[2]]
    elif name.startswith("attributes.") and len(name) > len("attributes."):
        found["attributes"][name.removeprefix("attributes.")] = value
    elif name.startswith("data.") and len(name) > len("data."):
        found["payload"][name.removeprefix("data.")] = value
    else:
        return False
    return True
