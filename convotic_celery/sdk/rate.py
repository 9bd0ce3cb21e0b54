"""The option ``rate_limit``: how many runs a worker process may start per second. Pure."""

from __future__ import annotations

import re

__all__ = ["check_rate", "parse_rate"]

_SECONDS_OF = {"s": 1, "m": 60, "h": 3600}
_RATE = re.compile(r"(\d+(?:\.\d+)?)(?:/([smh]))?")


def parse_rate(rate: str | float) -> float:
    """Return messages per second, from ``"10/s"``, ``"100/m"``, ``"500/h"`` or a number.

    Raises a ValueError that describes the form.
    """
    found = _RATE.fullmatch(str(rate).replace(" ", ""))
    number = float(found[1]) if found else 0.0
    if found is None or number <= 0:
        raise ValueError(
            f"{rate!r} is not a rate; use '10/s', '100/m', '500/h' or messages per second"
        )
    return number / _SECONDS_OF[found[2] or "s"]


def check_rate(rate: str | float) -> str | float:
    """Return the rate unchanged; raises ValueError."""
    parse_rate(rate)
    return rate
