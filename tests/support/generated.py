"""How Hypothesis's tests run beside another load."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

__all__ = ["patient"]

#: For ``@given``: an example may take as long as it does, and so may making it. Without it each has
#: 200 ms, and a busy machine fails the test.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
