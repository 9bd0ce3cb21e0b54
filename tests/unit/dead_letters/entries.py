"""Dead letters for tests that need no store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from convotic_celery.dead_letters import DeadLetter

__all__ = ["make_dead_letter"]


def make_dead_letter(**changes: Any) -> DeadLetter:
    """Return an open one of the handler ``orders.shop``."""
    values: dict[str, Any] = {
        "id": "28c765fadd01a2b3",
        "handler": "orders.shop",
        "topic": "orders",
        "subscription": "orders.shop",
        "message_id": "1",
        "dead_letter_id": "2",
        "reason": "max-retries-exceeded",
        "group": "9d38af8389a5",
        "dead_lettered_at": datetime(2026, 11, 28, tzinfo=UTC),
    }
    return DeadLetter(**values | changes)
