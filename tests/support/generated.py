"""How Hypothesis's tests run beside another load, and in CI."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

__all__ = ["IS_FIXED", "patient"]

#: In CI the examples are the same each time. New ones are tried wherever else the tests run: there
#: somebody has what failed before him, and can mend it.
IS_FIXED = bool(os.environ.get("CI"))

#: For ``@given``: an example may take as long as it does, and so may making it. Without it each has
#: 200 ms, and a busy machine fails the test.
patient = settings(
    deadline=None, derandomize=IS_FIXED, suppress_health_check=[HealthCheck.too_slow]
)
